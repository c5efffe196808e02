import type { JournalEntry, Json } from "@task-backend/core/adapter";
import type { IQueueBackend, JobJson, MinimalJob, Queue } from "bullmq";
import type { FailureRecord, JobData, JobRef, NewJob, StoredJob } from "./mapping.ts";

/** A job that a worker has claimed, and the lock it holds it with. */
export interface Claim {
  readonly ref: JobRef;
  readonly token: string;
  readonly json: JobJson;
  /** What `json.data` holds. */
  readonly data: JobData;
}

/** How a run ends. */
export type Ending = { readonly output: string } | FailureRecord;

/** One BullMQ queue as a worker serves it. */
export interface Lane {
  readonly queue: string;
  readonly workerName: string;
  readonly backend: IQueueBackend;
  /** Resolves when there may be something to claim, or after `timeoutMs`. Answers when the next delayed job is due, if known. */
  wait(timeoutMs: number): Promise<number | undefined>;
  /** Undoes a `wait` that this worker cannot follow, for others to hear of it. */
  passOn(): Promise<void>;
  /** Ends a `wait` under way. */
  interrupt(): Promise<void>;
  /** Looks for lost jobs every now and then, as BullMQ's workers do. */
  startStalledCheck(): Promise<void>;
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
  /** Those of the jobs that have finished. */
  finished(refs: readonly JobRef[]): Promise<readonly StoredJob[]>;
  /** Calls back with what has finished in a queue, from the moment it resolves. */
  watch(queue: string, onFinished: OnFinished): Promise<void>;

  /** Takes the run from whoever has it and settles it, or tells the workflow that has begun. */
  cancel(job: StoredJob, failure: FailureRecord): Promise<"requested" | "settled" | "unknown">;
  /** Calls back with the id of each run that was taken from the worker running it. */
  onCancel(listener: (runId: string) => void): Promise<() => void>;
  signal(ref: JobRef, entry: string, dedupeId: string | undefined): Promise<"accepted" | "settled" | "unknown" | "not-a-workflow">;

  lane(queue: string, options: { readonly workerName: string }): Lane;
  progress(claim: Claim, value: string): Promise<void>;
  /** Settles a run that a workflow waits for: its job, and the entry in that workflow's journal. Answers like moveToCompleted. */
  finishStep(lane: Lane, claim: Claim, ending: Ending, fetchNext: boolean): Promise<NextJob | "lost">;

  /** Begins or goes on with a workflow: what has come due is written down first. */
  load(claim: Claim, from: number, version: string | undefined): Promise<WorkflowState | "lost">;
  record(claim: Claim, tick: TickRecord): Promise<"done" | "lost">;
  /** Parks the run until its next timer, unless the journal is longer than `length` by now. */
  park(claim: Claim, length: number, tick: TickRecord | undefined): Promise<"done" | "more" | "lost">;
  /** Puts the run off; with an error it shows as retrying. */
  postpone(claim: Claim, delayMs: number, error: string | undefined): Promise<"done" | "lost">;
  /** Undefined when that command started nothing, or it has settled. */
  child(claim: Claim, n: number): Promise<string | undefined>;
  /** Settles a workflow. While runs that it started are unsettled it answers with their ids, and nothing but `ending` is written. */
  finishWorkflow(lane: Lane, claim: Claim, ending: Ending, force: boolean): Promise<"done" | "lost" | readonly string[]>;
  /** Drops signals that were sent to a run known by name only, which turned out to be a task. */
  forget(ref: JobRef): Promise<void>;
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
