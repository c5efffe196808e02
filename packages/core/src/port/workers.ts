import type { ErrorRecord } from "../values/error-record.ts";
import type { Headers, Json } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import type { Interruption } from "../work/interruption.ts";
import type { DefinitionSpec, FailedStatus, RunId } from "./runs.ts";
import type { Tick, TickResult } from "./workflows.ts";

export interface WorkerRequest {
  /** A name by which an operator can tell workers apart. */
  readonly name: string;
  readonly queues: readonly string[];
  /** The number of attempts at a time, in all queues together; workflow ticks take no slot. */
  readonly concurrency: number;
}

export interface WorkerHandle {
  /** Whether the worker is connected and claiming. */
  healthy(): boolean;
  /** Stops claiming. Attempts get `graceMs`, then are aborted with `"shutdown"` and released uncharged. A later call may shorten it. */
  stop(graceMs: number): Promise<void>;
}

/** Core's side of a worker. An adapter calls it and does not implement it. */
export interface WorkerRuntime {
  /** The definitions that this worker can run. */
  readonly definitions: readonly DefinitionSpec[];
  readonly log: Logger;
  /** Runs one attempt of a task. Never throws. */
  execute(attempt: Attempt): Promise<Decision>;
  /** Executes one tick of a workflow run. Never throws; the same tick gets the same answer, on any worker. */
  advance(tick: Tick): Promise<TickResult>;
  /** Drops the live function of a workflow run; its next tick replays it. */
  evict(id: RunId): void;
  /**
   * Sets a listener for live workflow runs that ended, or made a call, outside of a tick, because they waited for something that is
   * not a `wf` call. The adapter requests a tick of the run soon, as after a signal, so that the run reports it at once.
   */
  onStray(listener: (id: RunId) => void): void;
}

/** Why an adapter aborts an attempt: the user cancelled it, the worker stops, or another worker now owns the run. */
export type AbortReason = "cancel" | "shutdown" | "lost";

export interface Attempt {
  readonly id: RunId;
  readonly name: string;
  readonly queue: string;
  /** The number of this attempt, 1 for the first. Lost starts count, releases do not. */
  readonly attempt: number;
  readonly input: Json;
  readonly headers: Headers;
  /** The error of the previous attempt, if that one failed and was not lost. */
  readonly previousError?: ErrorRecord;
  /** A new one for each attempt; abort it to end the attempt. */
  readonly interruption: Interruption;
  /**
   * For engines whose leases or locks expire: whether this worker still owns the run. Core asks just before the handler starts, because
   * a process that was frozen after its claim may have lost the run. Must not throw; false ends the attempt as a release.
   */
  holds?(): boolean | Promise<boolean>;
  /** Stores the progress. Must not throw; the last value wins. */
  progress(value: Json): void;
}

export type Decision =
  | { readonly do: "complete"; readonly output: Json }
  | { readonly do: "retry"; readonly delayMs: number; readonly error: ErrorRecord }
  /** `attempts`: the number of attempts to record, when it differs from the number of this attempt. */
  | { readonly do: "settle"; readonly status: FailedStatus; readonly error: ErrorRecord; readonly attempts?: number }
  /** Releases the run, uncharged. */
  | { readonly do: "release"; readonly delayMs: number };
