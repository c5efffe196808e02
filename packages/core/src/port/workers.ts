import type { ErrorRecord } from "../values/error-record.ts";
import type { Headers, Json } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import type { Interruption } from "../work/interruption.ts";
import type { DefinitionSpec, FailedStatus, RunId } from "./runs.ts";
import type { Tick, TickResult } from "./workflows.ts";

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
  /** No new claims; attempts get `graceMs`, then are aborted with `"shutdown"` and released uncharged. A later call may shorten it. */
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
  /** Released, uncharged. */
  | { readonly do: "release"; readonly delayMs: number };
