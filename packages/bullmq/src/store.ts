import type { JournalEntry, Json } from "@task-backend/core/adapter";
import type { IQueueBackend, JobJson, MinimalJob, Queue } from "bullmq";
import { readEnvelope } from "./envelope.ts";
import type { JobRef } from "./ids.ts";
import type { FailureRecord, JobData, NewJob, StoredJob } from "./mapping.ts";

/** A job that a worker has claimed, and the token of its lock. */
export interface Claim {
  readonly ref: JobRef;
  readonly token: string;
  readonly json: JobJson;
  /** The parsed `json.data`. */
  readonly data: JobData;
  /** Why the job cannot be run: it is damaged, or not ours. */
  readonly damage?: Error;
  /** When the claim was sent, by the monotonic clock: the lock is not older. */
  readonly askedAt: number;
}

/** The outcome of a run. */
export type Ending = { readonly output: string } | FailureRecord;

/** One BullMQ queue of a worker. */
export interface Lane {
  readonly queue: string;
  readonly workerName: string;
  readonly backend: IQueueBackend;
  /** Claims the next job, if there is one. */
  claim(token: string): Promise<NextJob>;
  /**
   * Resolves with the time at which there may be something to claim, 0 for now, or undefined after `timeoutMs`.
   * Other workers may not hear the same news.
   */
  wait(timeoutMs: number): Promise<number | undefined>;
  /** Tells other workers the news from `wait`, or the due time of a delayed job, that this worker cannot act on. */
  announce(dueAtMs: number): Promise<void>;
  /** Ends a `wait` under way. */
  interrupt(): Promise<void>;
  /** Starts to listen for news, and to look for lost jobs at intervals, as BullMQ's workers do. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** Called when a job has finished. Without an id: any job of that queue may have. With an output: the job has completed with it. */
export type OnFinished = (queue: string, id: string | undefined, output?: Json) => void;

/** The entries of a workflow's journal from one position on, and its other state. */
export interface WorkflowState {
  readonly entries: readonly JournalEntry[];
  readonly seen: number;
  readonly commands: number;
  readonly retries: number;
  readonly startedAtMs: number;
  readonly version?: string;
  /** Recorded commands that may not have been started yet. */
  readonly outbox?: string;
  /** The run's outcome, once it is decided and its children are being cancelled. */
  readonly ending?: string;
}

/** The additions of a tick. Entries, timers and children are recorded in one step; the outbox is carried out after it. */
export interface TickRecord {
  readonly seen: number;
  readonly commands: number;
  /** JSON of the journal's new entries. */
  readonly entries: readonly string[];
  readonly timers: readonly (readonly [n: number, dueAtMs: number])[];
  readonly cancelledTimers: readonly number[];
  readonly children: readonly (readonly [n: number, run: string])[];
  readonly outbox?: string;
  /** How often the job has stalled so far: a tick that ends resets the count of lost ticks. */
  readonly stalls: number;
}

/** A finished job of `ends`, or a removed one, which has no `job`. */
export interface Ended {
  readonly ref: JobRef;
  readonly job: StoredJob | undefined;
}

/**
 * The operations that the adapter needs beyond BullMQ's own, on Redis and on PostgreSQL. Each method is one atomic step
 * (a script there, a function here) around BullMQ's scripts and functions. A method that takes a claim returns "lost" when the
 * claim no longer holds the lock; it then writes nothing.
 */
export interface Store {
  readonly where: string;
  connect(signal: AbortSignal): Promise<{ readonly version: string }>;
  close(): Promise<void>;
  /** Whether the workers' connection is up. */
  healthy(): boolean;

  /** The BullMQ queue of that name, created once. */
  queue(name: string): Queue;
  /** Adds jobs with BullMQ's backends; a job whose id already exists changes nothing. */
  add(jobs: readonly NewJob[]): Promise<void>;
  get(ref: JobRef): Promise<StoredJob | undefined>;
  /** The jobs that have finished; with `removed`, also jobs that no longer exist, without a `job`. */
  ends(refs: readonly JobRef[], removed: boolean): Promise<readonly Ended[]>;
  /** Calls back with the jobs that finish in a queue, once this has resolved. */
  watch(queue: string, onFinished: OnFinished): Promise<void>;

  /** Settles the run, taking it from its worker; a workflow that has started gets a journal entry instead. */
  cancel(job: StoredJob, failure: FailureRecord): Promise<"requested" | "settled" | "unknown">;
  /** Calls back with the id of each run that its worker may have lost; the worker then asks the store. */
  onCancel(listener: (runId: string) => void): Promise<() => void>;
  /** With `patient`, answers "closing" while the run is about to end and replays an earlier signal. */
  signal(ref: JobRef, entry: string, dedupeId: string | undefined, patient: boolean): Promise<SignalAnswer>;

  lane(queue: string, options: { readonly workerName: string }): Lane;
  progress(claim: Claim, value: string): Promise<void>;
  /** Settles a step: its job, and the entry in the parent workflow's journal. Returns the same as moveToCompleted. */
  finishStep(lane: Lane, claim: Claim, ending: Ending, fetchNext: boolean): Promise<NextJob | "lost">;

  /** Starts or continues a tick of a workflow: due timers are recorded first. */
  load(claim: Claim, from: number, version: string | undefined): Promise<WorkflowState | "lost">;
  record(claim: Claim, tick: TickRecord): Promise<"done" | "lost">;
  /** Makes a parked run due. */
  wake(ref: JobRef): Promise<void>;
  /** Replaces the entries that no committed tick has acted on by the same entries in another order. */
  reorder(claim: Claim, entries: readonly JournalEntry[]): Promise<"done" | "lost">;
  /** Parks the run until its next timer, unless the journal is longer than `length` by now. */
  park(claim: Claim, length: number, tick: TickRecord | undefined): Promise<"done" | "more" | "lost">;
  /** Delays the run; with an error its status is retrying. */
  postpone(claim: Claim, delayMs: number, error: string | undefined): Promise<"done" | "lost">;
  /** The run that a command started; undefined when it started none, or the run has settled. */
  child(claim: Claim, n: number): Promise<string | undefined>;
  /**
   * Settles a run and tells its parent workflow. Nothing is written when a signal has come after entry `seen` ("more").
   * If it has unsettled children, only `ending` is written and their ids are returned, unless forced.
   */
  finishWorkflow(lane: Lane, claim: Claim, ending: Ending, how: FinishOptions): Promise<"done" | "more" | "lost" | readonly string[]>;
  /** Marks a run submitted by name only as a task: its signals are dropped, and refused from now on. */
  markTask(ref: JobRef): Promise<void>;
}

export type SignalAnswer = "accepted" | "settled" | "unknown" | "not-a-workflow" | "closing";

export interface FinishOptions {
  /** Absent: the run ends even if signals have come since. */
  readonly seen?: number;
  readonly force?: boolean;
}

/** `[jobData, id, rateLimitDelayMs, delayUntilMs]`: the next claim, in the form that BullMQ's backends return it. */
export type NextJob = readonly unknown[] | undefined;

/** The part of a job that BullMQ's finishing operations read. */
export function minimalJob({ ref, json }: Pick<Claim, "ref" | "json">): MinimalJob {
  return { id: ref.id, opts: { attempts: 0, ...json.opts } } as MinimalJob;
}

/** BullMQ's retention: the job's own option, or that of the worker. */
export function keepFor(retentionMs: number): { readonly age: number } {
  return { age: Math.ceil(retentionMs / 1000) };
}

/** A new job in the form that BullMQ's backends take it. */
export function toJobJson({ ref, name, data, timestamp, opts }: NewJob): JobJson {
  const { priority, delay } = opts;
  return { id: ref.id, name, data: JSON.stringify(data), opts, timestamp, priority, ...(delay !== undefined && { delay }) } as JobJson;
}

/** Reads a claim's answer. Never throws: an unreadable job is claimed too, and its worker settles it. */
export function toClaim(lane: Lane, token: string, answer: NextJob, askedAt: number): Claim | undefined {
  const [json, id] = (answer ?? []) as [JobJson | null | undefined, string | undefined];
  if (!json || !id) return undefined;
  const { data, damage } = readEnvelope(json.data);
  const unnamed = typeof json.name === "string" ? undefined : new Error("The job has no name.");
  const why = damage ?? unnamed;
  return { ref: { queue: lane.queue, id }, token, askedAt, json, data, ...(why && { damage: why }) };
}
