import { MAX_TIMER_MS } from "./duration.ts";

/** Rejects when the promise has not settled in time; its later outcome is ignored. */
export function withTimeout<T>(promise: Promise<T>, timeoutMs: number, late: () => Error): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), Math.min(timeoutMs, MAX_TIMER_MS));
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

const ENDED = new Error("The call has ended.");

/** A call with a signal, which is aborted when the time is over, when `outer` is aborted, and when the call ends. */
export async function withSignal<T>(
  call: (signal: AbortSignal) => Promise<T>,
  timeoutMs: number | undefined,
  late: () => Error,
  outer?: AbortSignal,
): Promise<T> {
  const controller = new AbortController();
  const signal = outer ? AbortSignal.any([controller.signal, outer]) : controller.signal;
  const aborted = new Promise<never>((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
  // The end of the call aborts as well, when nobody awaits this promise any more.
  aborted.catch(() => {});
  const answer = Promise.race([call(signal), aborted]);
  try {
    return await (timeoutMs === undefined ? answer : withTimeout(answer, timeoutMs, late));
  } finally {
    // A ready-made reason: the default one is a new exception each time.
    controller.abort(ENDED);
  }
}
