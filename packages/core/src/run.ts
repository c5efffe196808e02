import { parseDuration, type Duration } from "./duration.ts";
import type { TaskBackend } from "./backend.ts";
import type { TaskResult } from "./result.ts";

/** How long to wait. */
export interface WaitOptions {
  /** Default: as long as it takes. */
  timeout?: Duration;
  signal?: AbortSignal;
}

/** One accepted submission. Made by `submit`, `submitMany` and `getRun`. */
export interface Run<Out = unknown> {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  /** Whether this submission met an earlier one with the same idempotency key. */
  readonly deduplicated: boolean;
  /**
   * Waits until the run is settled.
   * @throws TaskFailedError, TaskTimedOutError, TaskCancelledError by how it settled
   * @throws WaitTimeoutError when `timeout` passes first; the run goes on
   * @throws RunNotFoundError, BackendUnavailableError
   */
  output(options?: WaitOptions): Promise<Out>;
  /** The run as it stands. @throws RunNotFoundError, BackendUnavailableError */
  result(): Promise<TaskResult<Out>>;
  /** @throws RunNotFoundError, BackendUnavailableError */
  cancel(): Promise<void>;
  /** For workflows. @throws RunNotFoundError, RunSettledError, InvalidArgumentError, InvalidPayloadError */
  signal(name: string, payload?: unknown, options?: SignalOptions): Promise<void>;
}

export interface SignalOptions {
  /** Of signals with the same id for one run, the first counts. */
  dedupeId?: string;
}

export function createRun<Out>(
  backend: TaskBackend,
  wait: (id: string, timeoutMs: number | undefined, signal: AbortSignal | undefined) => Promise<Out>,
  facts: Pick<Run, "id" | "name" | "queue" | "deduplicated">,
): Run<Out> {
  const { id } = facts;
  return {
    ...facts,
    output: async ({ timeout, signal } = {}) =>
      wait(id, timeout === undefined ? undefined : parseDuration(timeout, "The timeout of output()"), signal),
    result: () => backend.getResult<Out>(id),
    cancel: () => backend.cancel(id),
    signal: (name, payload, options) => backend.signal(id, name, payload, options),
  };
}
