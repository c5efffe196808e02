import type { TaskDefinition } from "../define/definition.ts";
import { MAX_TIMER_MS, parseDuration, type Duration } from "../values/duration.ts";
import { cancelledRecord, errorRecord, toErrorRecord, type ErrorRecord } from "../values/error-record.ts";
import {
  AttemptInterruptedError,
  AttemptTimeoutError,
  InvalidInputError,
  NonRetryableError,
  RetryableError,
  TaskBackendError,
  TaskCancelledError,
} from "../values/errors.ts";
import type { Json } from "../values/json.ts";
import { withFields, type Logger } from "../values/log.ts";
import type { AbortReason, Attempt, Decision } from "../port/port.ts";
import type { PayloadCheck } from "../submit/requirements.ts";
import { backoffMs } from "../define/retry.ts";
import { parseInput } from "../define/schema.ts";
import type { TaskContext } from "../define/task.ts";
import { inRun, type RunScope } from "./run-scope.ts";

/** How long a run stays away from this worker when it cannot run it. */
export const RELEASE_MS = 1_000;

/** How an attempt ended, before the retry policy is applied. */
type Ending = { output: Json } | { thrown: unknown } | { refused: ErrorRecord } | { interrupted: AbortReason | "timeout" };

/** Runs one attempt and turns its outcome into a decision. */
export async function executeTask(task: TaskDefinition, attempt: Attempt, check: PayloadCheck, log: Logger): Promise<Decision> {
  const maxAttempts = task.retry.attempts;
  if (attempt.attempt > maxAttempts) {
    const error = attempt.previousError ?? workerLost(task.name, maxAttempts);
    return { do: "settle", status: error.code === "TIMEOUT" ? "timed_out" : "failed", error, attempts: maxAttempts };
  }
  return decide(task, attempt, await runHandler(task, attempt, check, log));
}

function workerLost(name: string, attempts: number): ErrorRecord {
  const times = attempts === 1 ? "Its only attempt" : `All ${attempts} attempts`;
  return errorRecord(
    "WorkerLostError",
    "WORKER_LOST",
    `${times} of "${name}" ended with the loss of the worker; look for a crash or a memory limit.`,
  );
}

function runHandler(task: TaskDefinition, attempt: Attempt, check: PayloadCheck, log: Logger): Promise<Ending> {
  const { reason } = attempt.interruption;
  if (reason !== undefined) return Promise.resolve({ interrupted: reason });
  // The first ending counts: what the handler does after an interruption is ignored.
  return new Promise((resolve) => new RunningAttempt(task, attempt, check, log, resolve).run());
}

/** The signal of a handler. It is made at its first use: most handlers never use it. */
class LazySignal {
  #controller: AbortController | undefined;
  #error: Error | undefined;

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#error) this.#controller.abort(this.#error);
    }
    return this.#controller.signal;
  }

  abort(error: Error): void {
    this.#error ??= error;
    this.#controller?.abort(this.#error);
  }
}

/** One attempt under way. */
class RunningAttempt {
  readonly #task: TaskDefinition;
  readonly #attempt: Attempt;
  readonly #check: PayloadCheck;
  readonly #log: Logger;
  readonly #lazy = new LazySignal();
  readonly #resolve: (ending: Ending) => void;
  #timer: NodeJS.Timeout | undefined;
  /** The deadline, by the monotonic clock. */
  #deadline = Number.POSITIVE_INFINITY;
  #ended = false;

  constructor(task: TaskDefinition, attempt: Attempt, check: PayloadCheck, log: Logger, resolve: (ending: Ending) => void) {
    this.#task = task;
    this.#attempt = attempt;
    this.#check = check;
    this.#log = withFields(log, { run: attempt.id, task: task.name, attempt: attempt.attempt });
    this.#resolve = resolve;
  }

  run(): void {
    const { interruption, id } = this.#attempt;
    interruption.onAbort(() => this.#abort(interruption.reason as AbortReason));
    const fail = (thrown: unknown): void => this.#end({ thrown });
    const scope: RunScope = { id, name: this.#task.name, kind: "task", log: this.#log, fail };
    void inRun(scope, () => this.#callHandler()).then((ending) => this.#end(ending));
  }

  #abort(why: AbortReason | "timeout"): void {
    this.#end({ interrupted: why });
    this.#lazy.abort(abortError(this.#task, why));
  }

  /** Ends the attempt. Whatever the handler does afterwards is ignored. */
  #end(ending: Ending): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#attempt.interruption.onAbort(undefined);
    this.#resolve(ending);
  }

  async #callHandler(): Promise<Ending> {
    const task = this.#task;
    let { input }: { input: unknown } = this.#attempt;
    try {
      if (task.schema) input = await parseInput(task.schema, input, task.name);
    } catch (thrown) {
      return thrown instanceof InvalidInputError ? { refused: { ...toErrorRecord(thrown), retryable: false } } : { thrown };
    }
    let output: unknown;
    try {
      // This is the last check before the handler: a process that is frozen in between may start a run that another worker owns.
      const holds = this.#attempt.holds?.() ?? true;
      if (holds !== true && !(await holds)) return { interrupted: "lost" };
      // The attempt has been interrupted and has ended already: this ending is ignored.
      if (this.#ended) return { interrupted: "lost" };
      this.#startTimer();
      output = await task.handler(input as never, this.#context());
    } catch (thrown) {
      return this.#inTime() ? { thrown } : { interrupted: "timeout" };
    }
    if (!this.#inTime()) return { interrupted: "timeout" };
    try {
      return { output: this.#check(output, `output of task "${task.name}"`) };
    } catch (thrown) {
      return { refused: invalidOutput(thrown) };
    }
  }

  /** Starts the timeout with the handler: time spent in the schema or the store does not count. */
  #startTimer(): void {
    const { timeoutMs } = this.#task;
    if (timeoutMs === undefined) return;
    this.#deadline = performance.now() + timeoutMs;
    this.#timer = setTimeout(() => this.#abort("timeout"), Math.min(timeoutMs, MAX_TIMER_MS));
  }

  /** Whether the timeout has not passed: a handler that blocks the event loop may end before the timer can fire. */
  #inTime(): boolean {
    if (performance.now() < this.#deadline) return true;
    this.#abort("timeout");
    return false;
  }

  #context(): TaskContext {
    const task = this.#task;
    const attempt = this.#attempt;
    const lazy = this.#lazy;
    return {
      id: attempt.id,
      name: task.name,
      queue: attempt.queue,
      attempt: attempt.attempt,
      maxAttempts: task.retry.attempts,
      get signal() {
        return lazy.signal;
      },
      headers: attempt.headers,
      log: this.#log,
      progress: (value) => {
        const json = this.#check(value, `progress of task "${task.name}"`);
        // Code that an attempt left running must not report progress for a later attempt.
        if (!this.#ended) attempt.progress(json);
      },
    };
  }
}

/** The record of an output that cannot be stored. */
export function invalidOutput(thrown: unknown): ErrorRecord {
  const record = toErrorRecord(thrown);
  // A refusal by the engine keeps its code. A value that cannot be read, because a getter throws, is an invalid output too.
  const refused = thrown instanceof TaskBackendError && record.code !== "INVALID_PAYLOAD";
  return { ...record, code: refused ? record.code : "INVALID_OUTPUT", retryable: false };
}

function abortError(task: TaskDefinition, why: AbortReason | "timeout"): Error {
  if (why === "timeout") return new AttemptTimeoutError(task.name, task.timeoutMs as number);
  if (why === "cancel") return new TaskCancelledError(task.name);
  return new AttemptInterruptedError(task.name, why === "shutdown" ? "the worker is stopping" : "another worker has taken the run over");
}

function decide(task: TaskDefinition, attempt: Attempt, ending: Ending): Decision {
  // A cancelled run settles as cancelled, even when its handler ended at the same moment.
  if (attempt.interruption.reason === "cancel") {
    return { do: "settle", status: "cancelled", error: cancelledRecord(task.name) };
  }
  if ("output" in ending) return { do: "complete", output: ending.output };
  if ("refused" in ending) return { do: "settle", status: "failed", error: ending.refused };
  if ("interrupted" in ending) {
    if (ending.interrupted !== "timeout") return { do: "release", delayMs: 0 };
    const { name, code, message } = new AttemptTimeoutError(task.name, task.timeoutMs as number);
    const error = errorRecord(name, code, message, true);
    return retryOrSettle(task, attempt, error, "timed_out");
  }
  const error = toErrorRecord(ending.thrown);
  if (ending.thrown instanceof NonRetryableError) return { do: "settle", status: "failed", error };
  return retryOrSettle(task, attempt, error, "failed", ending.thrown instanceof RetryableError ? ending.thrown.retryAfter : undefined);
}

function retryOrSettle(
  task: TaskDefinition,
  attempt: Attempt,
  error: ErrorRecord,
  status: "failed" | "timed_out",
  retryAfter?: number | string,
): Decision {
  if (attempt.attempt >= task.retry.attempts) return { do: "settle", status, error };
  if (retryAfter === undefined) return { do: "retry", delayMs: backoffMs(task.retry, attempt.attempt), error };
  try {
    return { do: "retry", delayMs: parseDuration(retryAfter as Duration, "retryAfter of a RetryableError"), error };
  } catch (thrown) {
    return { do: "settle", status: "failed", error: { ...toErrorRecord(thrown), retryable: false, cause: error } };
  }
}
