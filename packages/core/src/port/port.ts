import type { ErrorRecord } from "../values/error-record.ts";
import type { TaskBackendError } from "../values/errors.ts";
import type { Interruption } from "../work/interruption.ts";
import type { Headers, Json } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import type { Priority } from "../values/priority.ts";
import type { RetryPolicy } from "../define/retry.ts";

/*
 * The adapter port: all that an engine's package implements, and all that it is given.
 *
 * Core has already validated, filled in defaults and refused what the capabilities do not cover before it calls an
 * adapter; every value here is plain and serialisable. Outcomes are decisions that the engine carries out.
 */

/** Opaque; the adapter chooses it. `get(id)` needs nothing else, in any process. */
export type RunId = string;

// ---- The adapter ------------------------------------------------------------------------------------------------

/** One engine. A method that cannot reach it rejects with BackendUnavailableError; core bounds the time of each call. */
export interface Adapter {
  /** Connects, once; later calls of other methods need it. Answers with what was observed on the server. */
  connect(signal: AbortSignal): Promise<Capabilities>;
  /** Resolves when the engine has durably accepted each run, per item and in order. Needs no worker. */
  submit(runs: readonly RunRequest[]): Promise<readonly SubmitOutcome[]>;
  /** Undefined for unknown ids and for records past the retention. */
  get(id: RunId): Promise<RunRecord | undefined>;
  /** Resolves when the run is settled. One shared stream for all waits, no poll per run. Undefined when the id is unknown. */
  wait(id: RunId, signal: AbortSignal | undefined): Promise<Settlement | undefined>;
  /** `requested` also when it took effect at once; `settled` when there was nothing left to cancel. */
  cancel(id: RunId): Promise<"requested" | "settled" | "unknown">;
  /** Keeps the signal for the workflow, in order, once per `dedupeId`. */
  signal(id: RunId, request: SignalRequest): Promise<"accepted" | "settled" | "unknown" | "not-a-workflow">;
  /** Resolves once the worker is claiming. */
  startWorker(request: WorkerRequest, runtime: WorkerRuntime): Promise<WorkerHandle>;
  /** Frees everything; pending waits reject. */
  close(): Promise<void>;
}

/** What every adapter package exports as `createAdapter`. Reads its engine's customary variables from `env`. */
export type CreateAdapter = (context: AdapterContext) => Adapter | Promise<Adapter>;

export interface AdapterContext {
  /** `TASK_BACKEND_URL`, or `url` of `getBackend`. */
  readonly url?: string;
  /** `options` of `getBackend` or the configuration file; the adapter parses them. */
  readonly options?: unknown;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** The folder of the application's package.json. */
  readonly root: string;
  /** How long settled records must be kept. Absent: the engine's own default. */
  readonly retentionMs?: number;
}

// ---- Capabilities ------------------------------------------------------------------------------------------------

/**
 * - `native`: the engine's own feature
 * - `emulated`: built on the engine's primitives, with the same observable result
 * - `approximate`: differs in a declared way
 * - `unsupported`: refused with UnsupportedCapabilityError before any I/O
 */
export type Level = "native" | "emulated" | "approximate" | "unsupported";

/** What an engine may have or lack. Each line says what a user loses where it is `approximate` or `unsupported`. */
export const FEATURES = [
  /** Starts that are lost with their worker count as attempts (rule 2). Approximate: a task that kills its worker starts more often. */
  "lostStarts",
  /** Base delay, factor and cap of the policy are honoured (rule 4). Unsupported: a definition with more than one attempt is refused. */
  "backoff",
  /** `RetryableError({ retryAfter })` is honoured (rule 4). Approximate: the next attempt comes by the policy. */
  "retryAfter",
  /** An attempt that takes too long is aborted (rule 5). Unsupported: a definition with a timeout is refused. */
  "timeout",
  /** A run that waits can be cancelled (rule 6). Approximate: it may start once more before it settles. */
  "cancelWaiting",
  /** A run that another process executes can be cancelled (rule 6). Approximate: its handler may run to its end first. */
  "cancelRunning",
  /** Higher priority is served first (rule 7). Approximate: fewer levels or no strict order. Unsupported: any but `normal` is refused. */
  "priority",
  /** A run can be submitted for later (rule 8). Unsupported: `delay` and `runAt` are refused. */
  "delay",
  /** The same key is one run (rule 9). Unsupported: `idempotencyKey` is refused. */
  "idempotency",
  /** A key and a delay together (rule 9). Unsupported: they are refused together. */
  "idempotencyWithDelay",
  /** However many runs wait on a queue that no worker serves, the other queues go on (rule 10). Approximate: very many hold them up. */
  "queueIsolation",
  /** A run whose name no worker knows waits for one that does (rule 11). Approximate: it is found later than others. */
  "unknownName",
  /** Runs that a stopping worker releases are not charged an attempt (rule 12). Approximate: they may be. */
  "release",
  /** `ctx.progress` is shown by `getResult` (rule 16). Unsupported: it is not kept. */
  "progress",
  /** U+0000 in payloads (rule 16). Unsupported: they are refused, and U+FFFD takes its place in errors. */
  "nullCharacters",
  /** Unpaired surrogates in payloads (rule 16). Unsupported: they are refused, and U+FFFD takes their place in errors. */
  "loneSurrogates",
  /** Objects come back with their keys in the order they had (rule 16). Approximate: in another order. */
  "keyOrder",
  /** `scheduled`, `pending` and `retrying` can be told apart. Approximate: one may show as another. */
  "waitingStatuses",
  /** Workflows (rules 18 to 28). Unsupported: they are refused. */
  "workflows",
] as const;

export type Feature = (typeof FEATURES)[number];

export interface Capabilities {
  /** Shown to people and in errors: `sqlite`. */
  readonly engine: string;
  /** Of the engine, as observed. */
  readonly version: string;
  /** Where it is, without secrets: a path, or host and port. */
  readonly where: string;
  readonly features: Readonly<Record<Feature, Level>>;
  readonly limits: {
    /** UTF-8 bytes of JSON: inputs, outputs, progress, signal payloads. */
    readonly maxPayloadBytes: number;
    /** Of one workflow's records. Absent: no limit. */
    readonly maxJournalBytes?: number;
    /** How many of the five priorities are told apart. */
    readonly priorityLevels: number;
    /** How long settled records are kept. */
    readonly retentionMs: number;
    /** At most this long after a worker died, another takes its runs. */
    readonly recoveryMs: number;
    /** At most this late a delay, retry or sleep comes. */
    readonly timerLatenessMs: number;
    /** At most this long after a run is ready and a worker has a slot free for it, it starts (rule 29). */
    readonly dispatchMs: number;
  };
}

// ---- Submitting and reading ---------------------------------------------------------------------------------------

/** Plain facts about a task or workflow. */
export interface DefinitionSpec {
  readonly kind: "task" | "workflow";
  readonly name: string;
  readonly queue: string;
  /** Workflows only. */
  readonly version?: string;
  /** Tasks only, like `timeoutMs`. */
  readonly retry?: RetryPolicy;
  readonly timeoutMs?: number;
  readonly native?: unknown;
}

export interface RunRequest {
  /** `task` when only the name is known; the worker that knows the name decides. */
  readonly kind: "task" | "workflow";
  readonly name: string;
  readonly queue: string;
  readonly version?: string;
  readonly input: Json;
  readonly headers: Headers;
  readonly priority: Priority;
  readonly runAtMs?: number;
  readonly idempotencyKey?: string;
  readonly native?: unknown;
  /** Absent when the run is known by name only; never registers over a definition that exists. */
  readonly definition?: DefinitionSpec;
}

export type SubmitOutcome = { readonly id: RunId; readonly deduplicated: boolean } | { readonly error: TaskBackendError };

/** Where a run is: `scheduled` for later, `pending` in its queue, … ; the last four are settled. */
export type RunStatus = "scheduled" | "pending" | "running" | "retrying" | "completed" | "failed" | "cancelled" | "timed_out";

export interface RunRecord {
  readonly id: RunId;
  readonly name: string;
  readonly queue: string;
  readonly status: RunStatus;
  /** Starts so far. */
  readonly attempts: number;
  readonly progress?: Json;
  readonly submittedAtMs: number;
  readonly startedAtMs?: number;
  readonly finishedAtMs?: number;
  /** When completed. */
  readonly output?: Json;
  /** When settled otherwise, and the last one while `retrying`. */
  readonly error?: ErrorRecord;
}

export type FailedStatus = "failed" | "timed_out" | "cancelled";

/** How a run ended, for those who wait for it. */
export type Settlement = Pick<RunRecord, "id" | "name" | "status" | "output" | "error">;

export interface SignalRequest {
  readonly name: string;
  readonly payload: Json;
  readonly dedupeId?: string;
}

// ---- Workers -------------------------------------------------------------------------------------------------------

export interface WorkerRequest {
  /** Unique enough to tell workers apart for an operator. */
  readonly name: string;
  readonly queues: readonly string[];
  /** Attempts at a time in all queues together; workflow ticks take no slot. */
  readonly concurrency: number;
}

export interface WorkerHandle {
  /** Whether it is connected and claiming. */
  healthy(): boolean;
  /** No new claims; attempts get `graceMs`, then are aborted with `"shutdown"` and given back uncharged. A later call may shorten it. */
  stop(graceMs: number): Promise<void>;
}

/** Core's side of a worker: an adapter only calls it. */
export interface WorkerRuntime {
  /** What this worker can run. */
  readonly definitions: readonly DefinitionSpec[];
  readonly log: Logger;
  /** Runs one attempt of a task. Never throws. */
  execute(attempt: Attempt): Promise<Decision>;
  /** Takes one workflow further. Never throws; the same tick gets the same answer, on any worker. */
  advance(tick: Tick): Promise<TickResult>;
  /** Forgets a live workflow run. */
  evict(id: RunId): void;
  /**
   * Calls back with the id of each live workflow run that ended, or asked for something, outside of a tick: because it waited for
   * something that is not a `wf` call. The adapter asks for a tick of it soon, as after a signal, so that the run says so at once.
   */
  onStray(listener: (id: RunId) => void): void;
}

/** Why an adapter aborts an attempt: the user's cancel, the worker's stop, or another worker owning the run by now. */
export type AbortReason = "cancel" | "shutdown" | "lost";

export interface Attempt {
  readonly id: RunId;
  readonly name: string;
  readonly queue: string;
  /** 1 for the first; counts lost starts, not releases. */
  readonly attempt: number;
  readonly input: Json;
  readonly headers: Headers;
  /** Of the attempt before, if that one failed rather than got lost. */
  readonly previousError?: ErrorRecord;
  /** A new one for each attempt; abort it to end the attempt. */
  readonly interruption: Interruption;
  /**
   * For engines whose leases or locks run out: whether the run is this worker's still, asked in the moment before the handler begins. A
   * process that was frozen since its claim may have lost it. Must not throw; false ends the attempt as a release.
   */
  holds?(): boolean | Promise<boolean>;
  /** Must not throw; the last value wins. */
  progress(value: Json): void;
}

export type Decision =
  | { readonly do: "complete"; readonly output: Json }
  | { readonly do: "retry"; readonly delayMs: number; readonly error: ErrorRecord }
  /** `attempts`: what the record must say, when that is not the number of this attempt. */
  | { readonly do: "settle"; readonly status: FailedStatus; readonly error: ErrorRecord; readonly attempts?: number }
  /** Put back, uncharged. */
  | { readonly do: "release"; readonly delayMs: number };

// ---- Workflows -----------------------------------------------------------------------------------------------------

/**
 * What has happened in a workflow run, in the order that every replay sees it.
 * `command` records what the function asked for; the others are handed to it one at a time.
 */
export type JournalEntry =
  | { readonly type: "command"; readonly n: number; readonly key: string }
  | { readonly type: "settled"; readonly n: number; readonly atMs: number; readonly outcome: StepOutcome }
  /** A sleep is over, or the wait for a signal has timed out. `dueMs`: when it should have been; `atMs` where it is absent. */
  | { readonly type: "fired"; readonly n: number; readonly atMs: number; readonly dueMs?: number }
  | { readonly type: "signal"; readonly name: string; readonly payload: Json; readonly atMs: number }
  | { readonly type: "cancel"; readonly atMs: number };

export type StepOutcome =
  { readonly status: "completed"; readonly output: Json } | { readonly status: FailedStatus; readonly error: ErrorRecord };

/** A workflow's run, as a worker holds it for a tick. */
export interface WorkflowRun {
  readonly id: RunId;
  readonly name: string;
  readonly version?: string;
  readonly queue: string;
  readonly input: Json;
  readonly headers: Headers;
  /** What its steps inherit. Absent: normal. */
  readonly priority?: Priority;
  readonly startedAtMs: number;
}

export interface Tick extends WorkflowRun {
  /** The journal from entry `from` on. */
  readonly entries: readonly JournalEntry[];
  readonly from: number;
  /** Entries that an earlier tick has already acted on: logs stay silent before it. */
  readonly seen: number;
  /** Commands already carried out: those numbered below it are not answered again. */
  readonly commandsSeen: number;
  /** How often in a row this run answered `retry`. */
  readonly retries: number;
}

export type TickResult =
  /** Those numbered >= `tick.commandsSeen`. */
  | { readonly do: "wait"; readonly commands: readonly Command[] }
  | { readonly do: "complete"; readonly output: Json }
  | { readonly do: "settle"; readonly status: "failed" | "cancelled"; readonly error: ErrorRecord }
  /** Ask again later, or on a worker with other code; adds nothing to the journal. */
  | { readonly do: "retry"; readonly delayMs: number; readonly error: ErrorRecord }
  /**
   * The run is not live here: ask again with the whole journal. With `signalsFirst`, in the order that the function of this name gives:
   * the function was about to end over a signal that it has not seen.
   */
  | { readonly do: "needJournal"; readonly signalsFirst?: boolean }
  /** This worker does not know the workflow or its version: release it. */
  | { readonly do: "release"; readonly delayMs: number };

/** `key` goes into the journal as it is. `cancel` names the command whose run or timer is no longer wanted. */
export type Command = { readonly n: number; readonly key: string } & (
  | { readonly do: "run"; readonly run: RunRequest }
  | { readonly do: "sleep"; readonly untilMs: number }
  | { readonly do: "await"; readonly signal: string; readonly untilMs?: number }
  | { readonly do: "cancel"; readonly of: number }
);
