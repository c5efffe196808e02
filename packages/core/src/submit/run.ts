import { checkOptions } from "../define/checks.ts";
import { InvalidArgumentError } from "../values/errors.ts";
import { show } from "../values/show.ts";
import { parseDuration, type Duration } from "../values/duration.ts";
import type { TaskBackend } from "./backend.ts";
import type { RunResult } from "./result.ts";

/** How long to wait. */
export interface WaitOptions {
  /** Default: no limit. */
  timeout?: Duration;
  signal?: AbortSignal;
}

/** One accepted submission. Made by `submit`, `submitMany` and `getRun`. */
export interface Run<Out = unknown> {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  /** Whether an earlier submission with the same idempotency key had made this run. */
  readonly deduplicated: boolean;
  /**
   * Waits until the run is settled.
   * @throws TaskFailedError, TaskTimedOutError, TaskCancelledError by how it settled
   * @throws WaitTimeoutError when `timeout` passes first; the run goes on
   * @throws RunNotFoundError, BackendUnavailableError
   */
  output(options?: WaitOptions): Promise<Out>;
  /** The state of the run. @throws RunNotFoundError, BackendUnavailableError */
  result(): Promise<RunResult<Out>>;
  /** @throws RunNotFoundError, BackendUnavailableError */
  cancel(): Promise<void>;
  /** For workflows. @throws RunNotFoundError, RunSettledError, InvalidArgumentError, InvalidPayloadError */
  signal(name: string, payload?: unknown, options?: SignalOptions): Promise<void>;
}

export interface SignalOptions {
  /** If several signals for one run have the same id, only the first counts. */
  dedupeId?: string;
}

type Wait = (id: string, timeoutMs: number | undefined, signal: AbortSignal | undefined) => Promise<unknown>;

/** A class, because there is one object for each submission: its methods are made once. */
class SubmittedRun<Out> implements Run<Out> {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  readonly deduplicated: boolean;
  readonly #backend: TaskBackend;
  readonly #wait: Wait;

  constructor(backend: TaskBackend, wait: Wait, { id, name, queue, deduplicated }: Pick<Run, "id" | "name" | "queue" | "deduplicated">) {
    this.id = id;
    this.name = name;
    this.queue = queue;
    this.deduplicated = deduplicated;
    this.#backend = backend;
    this.#wait = wait;
  }

  async output(options: WaitOptions = {}): Promise<Out> {
    checkOptions(options, ["timeout", "signal"], "The options of output()", InvalidArgumentError);
    const { timeout, signal } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new InvalidArgumentError(`The signal of output() is ${show(signal)}; give an AbortSignal.`);
    const timeoutMs = timeout === undefined ? undefined : parseDuration(timeout, "The timeout of output()");
    return (await this.#wait(this.id, timeoutMs, signal)) as Out;
  }

  result(): Promise<RunResult<Out>> {
    return this.#backend.getResult<Out>(this.id);
  }

  cancel(): Promise<void> {
    return this.#backend.cancel(this.id);
  }

  signal(name: string, payload?: unknown, options?: SignalOptions): Promise<void> {
    return this.#backend.signal(this.id, name, payload, options);
  }
}

export function createRun<Out>(backend: TaskBackend, wait: Wait, facts: Pick<Run, "id" | "name" | "queue" | "deduplicated">): Run<Out> {
  return new SubmittedRun<Out>(backend, wait, facts);
}
