import { createHash, randomBytes, randomUUID } from "node:crypto";
import {
  cancelledRecord,
  corruptRecord,
  PRIORITIES,
  type ErrorRecord,
  type Headers,
  type Json,
  type Priority,
  type RunRecord,
  type RunRequest,
  type RunStatus,
  type SignalRequest,
  type StepOutcome,
} from "@task-backend/core/adapter";
import type { JobJson, JobsOptions } from "bullmq";
import { readFailure, readJson } from "./envelope.ts";
import { fromQueue, isWorkflowQueue, toQueue, toRef, toRunId, type JobRef } from "./ids.ts";
import type { NativeOptions } from "./native.ts";

/** The data of a job, in clear. */
export interface JobData {
  readonly input: Json;
  readonly headers?: Headers;
  /** Absent when the run was submitted by name only: the worker that knows the name decides. */
  readonly kind?: "task" | "workflow";
  readonly version?: string;
  /** The run id of the workflow that started this one, and the number of the command. */
  readonly parent?: readonly [run: string, n: number];
  readonly idempotencyKey?: string;
  /** The submission that made this run, among those with the same key. */
  readonly submission?: string;
}

/** The last entry of a job's stacktrace: everything that BullMQ has no field for. */
export interface FailureRecord {
  readonly status: RunStatus;
  readonly attempts: number;
  readonly startedAtMs?: number;
  readonly error: ErrorRecord;
}

/** A job as read from a store. */
export interface StoredJob {
  readonly ref: JobRef;
  readonly name: string;
  readonly data: JobData;
  readonly state: "waiting" | "delayed" | "active" | "completed" | "failed";
  readonly attemptsMade: number;
  readonly attemptsStarted: number;
  readonly stalledCounter: number;
  readonly timestamp: number;
  readonly dueAtMs: number;
  readonly processedOn?: number;
  readonly finishedOn?: number;
  readonly progress?: string;
  readonly returnvalue?: string;
  readonly failedReason?: string;
  readonly stacktrace?: string;
  /** Set when the run is a workflow that has started. */
  readonly workflow?: { readonly startedAtMs: number; readonly error?: string; readonly stalls: number };
}

// ---- submitting ----

/** The latest time that BullMQ's scores of delayed jobs can hold: they are milliseconds times 4096. */
export const MAX_DUE_MS = 2_190_000_000_000;

/** BullMQ serves lower numbers first. Every job has one, because jobs without a priority would go before all others. */
function toPriority(priority: Priority): number {
  return PRIORITIES.length - PRIORITIES.indexOf(priority);
}

/** The priority of a claimed job. BullMQ's own tools may have given it any number. */
export function fromPriority(priority: number | undefined): Priority {
  return PRIORITIES[PRIORITIES.length - (priority ?? 0)] ?? "normal";
}

/** A delay that ends within the latest time of a job. */
export function boundedDelay(delayMs: number): number {
  return Math.min(Math.ceil(delayMs), MAX_DUE_MS - Date.now());
}

export interface NewJob {
  readonly ref: JobRef;
  readonly name: string;
  readonly data: JobData;
  readonly timestamp: number;
  readonly opts: JobsOptions;
}

/** The job of a run. Its id follows from the parent or from the idempotency key, if it has one. */
export function toJob(request: RunRequest, parent?: readonly [run: string, n: number]): NewJob {
  const now = Date.now();
  const queue = toQueue(request.queue, request.kind);
  const known = request.kind === "workflow" || request.definition !== undefined;
  const id = parent ? `${toRef(parent[0])?.id}.${parent[1]}` : request.idempotencyKey === undefined ? newId(now) : keyedId(request);
  const native = (request.native as NativeOptions | undefined)?.bullmq;
  const delay = request.runAtMs === undefined ? 0 : Math.ceil(request.runAtMs - now);
  return {
    ref: { queue, id },
    name: request.name,
    data: {
      input: request.input,
      ...(Object.keys(request.headers).length > 0 && { headers: request.headers }),
      ...(known && { kind: request.kind }),
      ...(request.version !== undefined && { version: request.version }),
      ...(parent && { parent }),
      ...(request.idempotencyKey !== undefined && { idempotencyKey: request.idempotencyKey, submission: randomUUID() }),
    },
    timestamp: now,
    // The options are few, because each claim reads them: options that all jobs share are set on the worker.
    opts: { ...native, priority: toPriority(request.priority), ...(delay > 0 && { delay }) },
  };
}

/** The part of an id that is unique to this process: 80 random bits. */
const ORIGIN = randomBytes(10).toString("base64url");
let ids = 0;

function newId(now: number): string {
  // The id begins with the time, so that people can sort ids.
  return `${now.toString(36)}-${ORIGIN}-${(ids++).toString(36)}`;
}

function keyedId({ name, idempotencyKey }: RunRequest): string {
  return `k${createHash("sha256")
    .update(JSON.stringify([name, idempotencyKey]))
    .digest("hex")
    .slice(0, 40)}`;
}

// ---- reading ----

/** The charged starts so far: attempts that ended, and those lost with their worker. */
export function chargedStarts(job: { readonly attemptsMade: number; readonly stalledCounter: number }): number {
  return job.attemptsMade + job.stalledCounter;
}

export function toRecord(job: StoredJob): RunRecord {
  const failure = readFailure(job.stacktrace);
  const output = job.state === "completed" ? readJson(job.returnvalue ?? "null") : undefined;
  const status = job.state === "completed" && output === undefined ? "failed" : statusOf(job, failure);
  const startedAtMs = job.workflow?.startedAtMs ?? failure?.startedAtMs ?? job.processedOn;
  const attempts = attemptsOf(job, status, failure);
  const error = errorOf(job, status, failure);
  const progress = readJson(job.progress);
  return {
    id: toRunId(job.ref),
    name: job.name,
    queue: fromQueue(job.ref.queue),
    status,
    attempts,
    submittedAtMs: job.timestamp,
    ...(progress !== undefined && { progress }),
    ...(startedAtMs !== undefined && attempts > 0 && { startedAtMs }),
    ...(job.finishedOn !== undefined && { finishedAtMs: job.finishedOn }),
    ...(output !== undefined && { output }),
    ...(error && { error }),
  };
}

function statusOf(job: StoredJob, failure: FailureRecord | undefined): RunStatus {
  if (job.state === "completed") return "completed";
  if (job.state === "failed") return failure?.status ?? "failed";
  if (job.workflow) return job.workflow.error === undefined ? "running" : "retrying";
  if (job.state === "active") return "running";
  if (chargedStarts(job) > 0) return "retrying";
  return job.state === "delayed" && job.attemptsStarted === 0 && job.dueAtMs > Date.now() ? "scheduled" : "pending";
}

function attemptsOf(job: StoredJob, status: RunStatus, failure: FailureRecord | undefined): number {
  if (job.state === "failed" && failure) return failure.attempts;
  if (job.workflow || isWorkflowQueue(job.ref.queue)) return job.workflow || status === "completed" || job.state === "active" ? 1 : 0;
  return chargedStarts(job) + (status === "running" ? 1 : 0);
}

function errorOf(job: StoredJob, status: RunStatus, failure: FailureRecord | undefined): ErrorRecord | undefined {
  if (status === "retrying") {
    if (job.workflow)
      return (readJson(job.workflow.error) as ErrorRecord | undefined) ?? corruptRecord(`The error of run "${toRunId(job.ref)}"`);
    return failure && failure.attempts === chargedStarts(job) ? failure.error : undefined;
  }
  if (job.state === "completed" && status === "failed") return corruptRecord(`The output of run "${toRunId(job.ref)}"`);
  if (job.state !== "failed") return undefined;
  return failure?.error ?? { name: "Error", message: job.failedReason ?? "", code: "ENGINE_FAILED", retryable: false };
}

/** The error of the previous attempt, if that one failed and was not lost. */
export function previousFailure(json: Pick<JobJson, "stacktrace" | "attemptsMade" | "stalledCounter">): FailureRecord | undefined {
  const failure = json.attemptsMade > 0 ? readFailure(json.stacktrace) : undefined;
  return failure && failure.attempts === chargedStarts(json) ? failure : undefined;
}

/** The fields of a job that describe a failure: a text for BullMQ's tools, and our record as the last entry. */
export function failureFields(failure: FailureRecord): { readonly failedReason: string; readonly stacktrace: string } {
  const { error } = failure;
  const { status, ...rest } = failure;
  const readable = error.stack ?? `${error.name}: ${error.message}`;
  return { failedReason: error.message, stacktrace: JSON.stringify([readable, JSON.stringify({ status, ...rest })]) };
}

/** The failure of a run that was cancelled before, between or during its attempts. */
export function cancelledFailure(job: StoredJob): FailureRecord {
  const attempts = chargedStarts(job) + (job.state === "active" ? 1 : 0);
  const startedAtMs = readFailure(job.stacktrace)?.startedAtMs ?? job.processedOn;
  return { status: "cancelled", attempts, error: cancelledRecord(job.name), ...(startedAtMs !== undefined && { startedAtMs }) };
}

/** The first characters of a signal's journal entry. */
export const SIGNAL_BEGINS = '{"type":"signal",';

export function signalEntry({ name, payload }: SignalRequest): string {
  return JSON.stringify({ type: "signal", name, payload, atMs: Date.now() });
}

/** The outcome of a run, for the workflow that waits for it. */
function outcomeOf(ending: { readonly output: string } | FailureRecord): StepOutcome {
  if ("output" in ending) return { status: "completed", output: JSON.parse(ending.output) as Json };
  return { status: ending.status as "failed" | "timed_out" | "cancelled", error: ending.error };
}

/** The entry that a settled step adds to its parent workflow's journal; undefined when it has no parent. */
export function settledEntry({ parent }: JobData, ending: { readonly output: string } | FailureRecord): string | undefined {
  return parent && JSON.stringify({ type: "settled", n: parent[1], atMs: Date.now(), outcome: outcomeOf(ending) });
}
