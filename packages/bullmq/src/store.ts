import type { JournalEntry, Json } from "@task-backend/core/adapter";
import type { IQueueBackend, JobJson, MinimalJob, Queue } from "bullmq";
import { readEnvelope } from "./envelope.ts";
import type { JobRef } from "./ids.ts";
import type { FailureRecord, JobData, NewJob, StoredJob } from "./mapping.ts";

/** A job that a worker has claimed, and the lock it holds it with. */
export interface Claim {
  readonly ref: JobRef;
  readonly token: string;
  readonly json: JobJson;
  /** What `json.data` holds. */
  readonly data: JobData;
  /** Why the job cannot be run: it is damaged, or not ours. */
  readonly damage?: Error;
  /** By the monotonic clock: when the claim was sent, at the earliest the time of its lock. */
  readonly askedAt: number;
}

/** How a run ends. */
export type Ending = { readonly output: string } | FailureRecord;

/** One BullMQ queue as a worker serves it. */
export interface Lane {
  readonly queue: string;
  readonly workerName: string;
  readonly backend: IQueueBackend;
  /** Takes the lock of the next job, where there is one. */
  claim(token: string): Promise<NextJob>;
  /**
   * Resolves with the time from which on there may be something to claim, 0 for now, or undefined after `timeoutMs`.
   * Others may not be told the same.
   */
  wait(timeoutMs: number): Promise<number | undefined>;
  /** Tells others what `wait` has answered, or when a delayed job is due, where this worker cannot follow it. */
  announce(dueAtMs: number): Promise<void>;
  /** Ends a `wait` under way. */
  interrupt(): Promise<void>;
  /** Hears of news, and looks for lost jobs every now and then, as BullMQ's workers do. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** Without an id: something in that queue may have. With an output: that job has completed with it. */
export type OnFinished = (queue: string, id: string | undefined, output?: Json) => void;

/** What a workflow's journal holds from an entry on, and beside the journal. */
export interface WorkflowState {
  readonly entries: readonly JournalEntry[];
  readonly seen: number;
  readonly commands: number;
  readonly retries: number;
  readonly startedAtMs: number;
  readonly version?: string;
  /** Commands that are on record and may not have been started yet. */
  readonly outbox?: string;
  /** How the run ends, once that is decided and what it started is being cancelled. */
  readonly ending?: string;
}

/** What a tick adds. Entries, timers and children are recorded in one step; the outbox is carried out after it. */
export interface TickRecord {
  readonly seen: number;
  readonly commands: number;
  /** JSON of the journal's new entries. */
  readonly entries: readonly string[];
  readonly timers: readonly (readonly [n: number, dueAtMs: number])[];
  readonly cancelledTimers: readonly number[];
  readonly children: readonly (readonly [n: number, run: string])[];
  readonly outbox?: string;
  /** How often the job has stalled so far: a tick that came to its end starts the count of lost ones anew. */
  readonly stalls: number;
}

/**
 * What the adapter needs beyond BullMQ's own operations, on Redis and on PostgreSQL. Each method is one atomic step
 * (a script there, a function here) around BullMQ's scripts and functions. Methods that take a claim answer "lost" when
 * it does not hold the lock any more; nothing is written then.
 */
export interface Ended {
  readonly ref: JobRef;
  readonly job: StoredJob | undefined;
}

export interface Store {
  readonly where: string;
  connect(signal: AbortSignal): Promise<{ readonly version: string }>;
  close(): Promise<void>;
  /** Whether the connection of workers is up. */
  healthy(): boolean;

  /** BullMQ's queue of that name, made once. */
  queue(name: string): Queue;
  /** Adds jobs by BullMQ's backends; one with an id that exists already changes nothing. */
  add(jobs: readonly NewJob[]): Promise<void>;
  get(ref: JobRef): Promise<StoredJob | undefined>;
  /** Those of the jobs that have finished; with `removed`, also those that are no more, which have no `job`. */
  ends(refs: readonly JobRef[], removed: boolean): Promise<readonly Ended[]>;
  /** Calls back with what has finished in a queue, from the moment it resolves. */
  watch(queue: string, onFinished: OnFinished): Promise<void>;

  /** Takes the run from whoever has it and settles it, or tells the workflow that has begun. */
  cancel(job: StoredJob, failure: FailureRecord): Promise<"requested" | "settled" | "unknown">;
  /** Calls back with the id of each run that may have been taken from the worker running it: the store is asked then. */
  onCancel(listener: (runId: string) => void): Promise<() => void>;
  /** A patient sender is told when the run is about to end and is just looking at the signals before this one. */
  signal(ref: JobRef, entry: string, dedupeId: string | undefined, patient: boolean): Promise<SignalAnswer>;

  lane(queue: string, options: { readonly workerName: string }): Lane;
  progress(claim: Claim, value: string): Promise<void>;
  /** Settles a run that a workflow waits for: its job, and the entry in that workflow's journal. Answers like moveToCompleted. */
  finishStep(lane: Lane, claim: Claim, ending: Ending, fetchNext: boolean): Promise<NextJob | "lost">;

  /** Begins or goes on with a workflow: what has come due is written down first. */
  load(claim: Claim, from: number, version: string | undefined): Promise<WorkflowState | "lost">;
  record(claim: Claim, tick: TickRecord): Promise<"done" | "lost">;
  /** Makes a parked run due. */
  wake(ref: JobRef): Promise<void>;
  /** Replaces the entries that no committed tick has acted on by the same ones in another order. */
  reorder(claim: Claim, entries: readonly JournalEntry[]): Promise<"done" | "lost">;
  /** Parks the run until its next timer, unless the journal is longer than `length` by now. */
  park(claim: Claim, length: number, tick: TickRecord | undefined): Promise<"done" | "more" | "lost">;
  /** Puts the run off; with an error it shows as retrying. */
  postpone(claim: Claim, delayMs: number, error: string | undefined): Promise<"done" | "lost">;
  /** Undefined when that command started nothing, or it has settled. */
  child(claim: Claim, n: number): Promise<string | undefined>;
  /**
   * Settles a run, and tells the workflow that started it. Nothing is written when a signal has come after entry `seen`
   * ("more"). While runs that it started are unsettled it answers with their ids, and nothing but `ending` is written, unless forced.
   */
  finishWorkflow(lane: Lane, claim: Claim, ending: Ending, how: FinishOptions): Promise<"done" | "more" | "lost" | readonly string[]>;
  /** A run known by name only turned out to be a task: signals that were sent to it are dropped, and refused from now on. */
  markTask(ref: JobRef): Promise<void>;
}

export type SignalAnswer = "accepted" | "settled" | "unknown" | "not-a-workflow" | "closing";

export interface FinishOptions {
  /** Absent: the run ends whatever has come. */
  readonly seen?: number;
  readonly force?: boolean;
}

/** `[jobData, id, rateLimitDelayMs, delayUntilMs]`, as BullMQ's backends answer with the next claim. */
export type NextJob = readonly unknown[] | undefined;

/** What BullMQ's finishing operations read of a job. */
export function minimalJob({ ref, json }: Pick<Claim, "ref" | "json">): MinimalJob {
  return { id: ref.id, opts: { attempts: 0, ...json.opts } } as MinimalJob;
}

/** BullMQ's retention: the job's own option, or that of the worker. */
export function keepFor(retentionMs: number): { readonly age: number } {
  return { age: Math.ceil(retentionMs / 1000) };
}

/** A new job as BullMQ's backends take it. */
export function toJobJson({ ref, name, data, timestamp, opts }: NewJob): JobJson {
  const { priority, delay } = opts;
  return { id: ref.id, name, data: JSON.stringify(data), opts, timestamp, priority, ...(delay !== undefined && { delay }) } as JobJson;
}

/** What a claim's answer holds. Never throws: a job that cannot be read is claimed all the same, and settled by whoever has it. */
export function toClaim(lane: Lane, token: string, answer: NextJob, askedAt: number): Claim | undefined {
  const [json, id] = (answer ?? []) as [JobJson | null | undefined, string | undefined];
  if (!json || !id) return undefined;
  const { data, damage } = readEnvelope(json.data);
  const unnamed = typeof json.name === "string" ? undefined : new Error("The job has no name.");
  const why = damage ?? unnamed;
  return { ref: { queue: lane.queue, id }, token, askedAt, json, data, ...(why && { damage: why }) };
}
