import { MAX_TIMER_MS } from "./duration.ts";

/**
 * Races a call against a timer. When the timer or `outer` wins, the call's signal is aborted and its later outcome ignored.
 * The timer keeps the process alive as the call itself would.
 */
export async function withTimeout<T>(
  call: (signal: AbortSignal) => Promise<T>,
  timeoutMs: number | undefined,
  late: () => Error,
  outer?: AbortSignal,
): Promise<T> {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  try {
    return await new Promise<T>((resolve, reject) => {
      if (timeoutMs !== undefined) timer = setTimeout(() => reject(late()), Math.min(timeoutMs, MAX_TIMER_MS));
      onAbort = () => reject(outer?.reason as Error);
      outer?.addEventListener("abort", onAbort, { once: true });
      call(controller.signal).then(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    if (onAbort) outer?.removeEventListener("abort", onAbort);
    controller.abort();
  }
}
