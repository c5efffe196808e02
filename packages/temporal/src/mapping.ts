import { createHash, randomUUID } from "node:crypto";
import {
  cancelledRecord,
  type ErrorRecord,
  type Json,
  type RunRecord,
  type RunRequest,
  type RunStatus,
  type Settlement,
} from "@task-backend/core/adapter";
import type { ActivityExecutionDescription, WorkflowExecutionDescription } from "@temporalio/client";
import { ActivityFailure, ApplicationFailure, RetryState, TimeoutFailure } from "@temporalio/common";
import { detailOf } from "./failure.ts";
import { withoutUnheard, type Beat, type FailureDetail } from "./wire.ts";

// ---- ids ----

/** The kind and id of a run in Temporal. */
export interface RunRef {
  readonly kind: "activity" | "workflow";
  readonly id: string;
}

export function toRunId({ kind, id }: RunRef): string {
  return `${kind}:${id}`;
}

/** Splits a run id; undefined for one that cannot be an id of Temporal, which the server would refuse. */
export function toRef(runId: string): RunRef | undefined {
  const [, kind, id] = /^(activity|workflow):(.+)$/s.exec(runId) ?? [];
  if (!kind || !id || Buffer.byteLength(id) > MAX_ID_BYTES || /\p{Cs}/u.test(id)) return undefined;
  return { kind: kind as RunRef["kind"], id };
}

const MAX_ID_BYTES = 1_000;

/** The id of the workflow of a run that was submitted as an activity, by its name only. */
export function forwardedId(activityId: string): string {
  return `${activityId}.workflow`;
}

/** The name in one of our ids, which begin with it. */
export function nameOf(id: string): string {
  return id.replace(/-(?:key-[0-9a-f]{40}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.\d+)*$/, "");
}

/** An id that begins with the name, for people. If there is an idempotency key, the id follows from it. */
export function newId({ name, queue, idempotencyKey }: RunRequest): string {
  if (idempotencyKey === undefined) return `${name}-${randomUUID()}`;
  return `${name}-key-${createHash("sha256")
    .update(JSON.stringify([name, queue, idempotencyKey]))
    .digest("hex")
    .slice(0, 40)}`;
}

// ---- settlements ----

/** The status and error with which a failure of Temporal settles a run. */
export function failedAs(
  name: string,
  failure: unknown,
): { readonly status: RunStatus; readonly error: ErrorRecord; readonly attempts?: number; readonly beat?: Beat } {
  const causes = causesOf(failure);
  const ours = causes.map(detailOf).find((detail) => detail !== undefined);
  const cancelled = causes.some(isCancelled);
  if (ours && !(cancelled && isToCome(ours))) {
    const { status, error, attempts, beat } = ours;
    return { status: isToCome(ours) ? "failed" : (status as RunStatus), error, attempts, ...(beat && { beat }) };
  }
  if (cancelled) return { status: "cancelled", error: cancelledRecord(name) };
  const cause = causes.at(-1);
  const type = cause instanceof ApplicationFailure ? (cause.type ?? "Error") : (cause?.name ?? "Error");
  return { status: "failed", error: { name: type, message: cause?.message ?? "", code: "ENGINE_FAILED", retryable: false } };
}

/** Whether the failure announced another attempt. */
function isToCome({ status }: FailureDetail["taskBackend"]): boolean {
  return status === "retrying" || status === "released";
}

function isCancelled(cause: Error): boolean {
  // A run that was cancelled, and then lost its worker or was released, ends with that failure.
  if (cause instanceof ActivityFailure && cause.retryState === RetryState.CANCEL_REQUESTED) return true;
  return cause.name === "CancelledFailure" || cause.name === "TerminatedFailure";
}

function causesOf(failure: unknown): Error[] {
  const causes: Error[] = [];
  for (let cause = failure; cause instanceof Error && causes.length < 20; cause = cause.cause) causes.push(cause);
  return causes;
}

/** Whether a failure leaves open if the run was cancelled: a lost worker and a release do not tell. */
export function isUndecided(failure: unknown): boolean {
  return causesOf(failure).some((cause) => {
    const ours = detailOf(cause);
    return cause instanceof TimeoutFailure || (ours !== undefined && isToCome(ours));
  });
}

export function toSettlement(id: string, name: string, failure: unknown): Settlement {
  const { status, error } = failedAs(name, failure);
  return { id, name, status, error };
}

// ---- records ----

const ms = (date: Date | undefined): number | undefined => date?.getTime();

/** The state of an unsettled task, wherever Temporal keeps its attempts. */
export interface OpenTask {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  readonly submittedAtMs: number;
  readonly dueAtMs: number;
  /** The number of the attempt that is running, or comes next. */
  readonly attempt: number;
  readonly running: boolean;
  readonly lastStartedAtMs: number | undefined;
  readonly lastFailure: Error | undefined;
  readonly beat: Beat;
}

export function openRecord(task: OpenTask): RunRecord {
  const { id, name, queue, submittedAtMs, dueAtMs, attempt, beat, lastFailure } = task;
  const released = beat.released ?? 0;
  const { progress, startedAtMs = task.lastStartedAtMs } = beat;
  const common = { id, name, queue, submittedAtMs, ...(progress !== undefined && { progress }) };
  const started = startedAtMs !== undefined && { startedAtMs };
  if (task.running) return { ...common, status: "running", attempts: attempt - released, ...started };
  const attempts = attempt - 1 - released;
  if (attempts <= 0) return { ...common, status: attempt === 1 && dueAtMs > Date.now() ? "scheduled" : "pending", attempts: 0 };
  const last = detailOf(lastFailure);
  // A released attempt is neither charged nor a failure.
  const error = last?.status === "released" ? beat.failed?.error : last?.error;
  return { ...common, status: "retrying", attempts, ...started, ...(error && { error }) };
}

/** The record of a standalone activity. */
export async function activityRecord(id: string, description: ActivityExecutionDescription): Promise<RunRecord> {
  const { activityType: name, taskQueue: queue, status, attempt } = description;
  const last: Beat = (description.hasHeartbeatDetails && (await description.getHeartbeatDetails<Beat>())) || {};
  const beat = withoutUnheard(last, attempt);
  const released = beat.released ?? 0;
  const submittedAtMs = ms(description.scheduleTime) ?? 0;
  if (status === "RUNNING" || status === "PAUSED") {
    return openRecord({
      id,
      name,
      queue,
      submittedAtMs,
      dueAtMs: submittedAtMs + (description.startDelayMs ?? 0),
      attempt,
      running: description.runState === "STARTED" || description.runState === "CANCEL_REQUESTED",
      lastStartedAtMs: ms(description.lastStartedTime),
      lastFailure: attempt > 1 && description.hasLastFailure ? await description.getLastFailure() : undefined,
      beat,
    });
  }
  const common = { id, name, queue, submittedAtMs, ...(beat.progress !== undefined && { progress: beat.progress }) };
  const startedAtMs = beat.startedAtMs ?? ms(description.lastStartedTime);
  const started = (attempts: number) => (startedAtMs === undefined || attempts < 1 ? {} : { startedAtMs });
  const finished = { finishedAtMs: ms(description.closeTime) ?? Date.now() };
  if (status === "COMPLETED") {
    const attempts = attempt - released;
    const output = description.hasResult ? ((await description.getResult<Json>()) ?? null) : null;
    return { ...common, status: "completed", attempts, ...started(attempts), ...finished, output };
  }
  const failure = description.hasOutcomeFailure ? await description.getOutcomeFailure() : undefined;
  const wasCancelled = description.canceledReason !== undefined && isUndecided(failure);
  const cancelled = status === "CANCELED" || status === "TERMINATED" || wasCancelled;
  const {
    attempts = waitingAttempts(description, released),
    beat: _,
    ...how
  } = cancelled ? { status: "cancelled" as const, error: cancelledRecord(name), beat: undefined } : failedAs(name, failure);
  return { ...common, ...how, attempts, ...started(attempts), ...finished };
}

function waitingAttempts({ attempt, lastStartedTime, runState }: ActivityExecutionDescription, released: number): number {
  if (!lastStartedTime) return 0;
  return attempt - released - (runState === "SCHEDULED" ? 1 : 0);
}

/** The record of an unsettled workflow execution. */
export function workflowRecord(
  id: string,
  description: WorkflowExecutionDescription,
  begun: boolean,
  tickFailure: Error | undefined,
): RunRecord {
  const { type: name, taskQueue: queue, startTime, executionTime } = description;
  const submittedAtMs = startTime.getTime();
  const dueAtMs = executionTime?.getTime() ?? submittedAtMs;
  const tick = detailOf(tickFailure);
  const error = tick?.status === "retrying" ? tick.error : undefined;
  const status: RunStatus = error ? "retrying" : begun ? "running" : dueAtMs > Date.now() ? "scheduled" : "pending";
  return {
    id,
    name,
    queue,
    status,
    attempts: begun ? 1 : 0,
    submittedAtMs,
    ...(begun && { startedAtMs: dueAtMs }),
    ...(error && { error }),
  };
}
