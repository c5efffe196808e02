import type { TaskDefinition } from "../define/definition.ts";
import { MAX_TIMER_MS, parseDuration, type Duration } from "../values/duration.ts";
import { cancelledRecord, errorRecord, toErrorRecord, type ErrorRecord } from "../values/error-record.ts";
import {
  AttemptInterruptedError,
  AttemptTimeoutError,
  InvalidInputError,
  NonRetryableError,
  RetryableError,
  TaskCancelledError,
} from "../values/errors.ts";
import type { Json } from "../values/json.ts";
import { withFields, type Logger } from "../values/log.ts";
import type { AbortReason, Attempt, Decision } from "../port/port.ts";
import type { PayloadCheck } from "../submit/requirements.ts";
import { backoffMs } from "../define/retry.ts";
import { parseInput } from "../define/schema.ts";
import type { TaskContext } from "../define/task.ts";
import { inRun } from "./run-scope.ts";

/** How long a run that this worker cannot run stays away from it. */
export const RELEASE_MS = 1_000;

/** What an attempt ended with, before the policy has its say. */
type Ending = { output: Json } | { thrown: unknown } | { refused: ErrorRecord } | { interrupted: AbortReason | "timeout" };

/** Runs one attempt and decides what its outcome means. */
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

async function runHandler(task: TaskDefinition, attempt: Attempt, check: PayloadCheck, log: Logger): Promise<Ending> {
  const { interruption } = attempt;
  if (interruption.reason !== undefined) return { interrupted: interruption.reason };
  const running = new RunningAttempt(task, attempt, check, log);
  interruption.onAbort(() => running.abort(interruption.reason as AbortReason));
  try {
    // The race ends with the interruption: whatever the handler does later is ignored.
    return await Promise.race([running.interrupted, running.run()]);
  } finally {
    running.end();
    interruption.onAbort(undefined);
  }
}

/** The signal of a handler, made when it is first looked at: most handlers never do. */
class LazySignal {
  #controller: AbortController | undefined;
  #error: Error | undefined;

  get aborted(): boolean {
    return this.#error !== undefined;
  }

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
  readonly interrupted: Promise<Ending>;
  readonly #task: TaskDefinition;
  readonly #attempt: Attempt;
  readonly #check: PayloadCheck;
  readonly #log: Logger;
  readonly #lazy = new LazySignal();
  #interrupt: (ending: Ending) => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  /** By the monotonic clock. */
  #deadline = Number.POSITIVE_INFINITY;
  #ended = false;

  constructor(task: TaskDefinition, attempt: Attempt, check: PayloadCheck, log: Logger) {
    this.#task = task;
    this.#attempt = attempt;
    this.#check = check;
    this.#log = withFields(log, { run: attempt.id, task: task.name, attempt: attempt.attempt });
    this.interrupted = new Promise<Ending>((resolve) => (this.#interrupt = resolve));
  }

  abort(why: AbortReason | "timeout"): void {
    this.#interrupt({ interrupted: why });
    this.#lazy.abort(abortError(this.#task, why));
  }

  /** What the handler does from now on is its own affair. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
  }

  async run(): Promise<Ending> {
    const { id, name, kind } = { id: this.#attempt.id, name: this.#task.name, kind: "task" as const };
    const fail = (thrown: unknown): void => this.#interrupt({ thrown });
    // Reads what was thrown inside the scope: its getters are the user's code as well.
    return inRun({ id, name, kind, log: this.#log, fail }, () => this.#callHandler());
  }

  async #callHandler(): Promise<Ending> {
    const { task, input: given } = { task: this.#task, input: this.#attempt.input };
    let input: unknown;
    try {
      input = await parseInput(task.schema, given, task.name);
    } catch (thrown) {
      return thrown instanceof InvalidInputError ? { refused: { ...toErrorRecord(thrown), retryable: false } } : { thrown };
    }
    let output: unknown;
    try {
      // The last thing before the handler: a process that is frozen between the two may begin what is another's.
      const holds = this.#attempt.holds?.() ?? true;
      if (holds !== true && !(await holds)) return { interrupted: "lost" };
      // Interrupted by now, and known to be: nothing waits for this ending.
      if (this.#lazy.aborted || this.#ended) return { interrupted: "lost" };
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

  /** The timeout is the handler's: neither a slow schema nor a slow store takes from it. */
  #startTimer(): void {
    const { timeoutMs } = this.#task;
    if (timeoutMs === undefined) return;
    this.#deadline = performance.now() + timeoutMs;
    this.#timer = setTimeout(() => this.abort("timeout"), Math.min(timeoutMs, MAX_TIMER_MS));
  }

  /** A handler that blocked the event loop ends before the timer could fire. */
  #inTime(): boolean {
    if (performance.now() < this.#deadline) return true;
    this.abort("timeout");
    return false;
  }

  #context(): TaskContext {
    const { task, attempt, lazy } = { task: this.#task, attempt: this.#attempt, lazy: this.#lazy };
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
        // What an earlier attempt left behind must not speak for a later one.
        if (!lazy.aborted && !this.#ended) attempt.progress(json);
      },
    };
  }
}

/** The record of an output that cannot be stored. */
export function invalidOutput(thrown: unknown): ErrorRecord {
  const record = toErrorRecord(thrown);
  return { ...record, code: record.code === "INVALID_PAYLOAD" ? "INVALID_OUTPUT" : record.code, retryable: false };
}

function abortError(task: TaskDefinition, why: AbortReason | "timeout"): Error {
  if (why === "timeout") return new AttemptTimeoutError(task.name, task.timeoutMs as number);
  if (why === "cancel") return new TaskCancelledError(task.name);
  return new AttemptInterruptedError(task.name, why === "shutdown" ? "the worker is stopping" : "another worker has taken the run over");
}

function decide(task: TaskDefinition, attempt: Attempt, ending: Ending): Decision {
  // A cancelled run settles cancelled, also when its handler ended in the same moment.
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
