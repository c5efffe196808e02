/** The effects of SIGINT and SIGTERM on the command. The abort reason of each is the name of the signal. */
export interface StopSignals {
  /** Aborted by the first signal: stop within the grace period, or at once if nothing is under way. */
  readonly stop: AbortSignal;
  /** Aborted by the second signal: stop at once. */
  readonly now: AbortSignal;
}

/** Starts to listen, for as long as the process lives. */
export function listenForSignals(): StopSignals {
  const [stop, now] = [new AbortController(), new AbortController()];
  const onSignal = (signal: NodeJS.Signals): void => (stop.signal.aborted ? now : stop).abort(signal);
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  return { stop: stop.signal, now: now.signal };
}

/** Settles like the promise, or with undefined as soon as the signal is aborted. */
export async function unlessAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T | undefined> {
  let onAbort = (): void => {};
  const aborted = new Promise<undefined>((resolve) => {
    onAbort = () => resolve(undefined);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/**
 * Waits for work to end, but no longer than `limitMs`, and no longer than `afterSignalMs` once the signal is aborted.
 * @returns whether it ended; when it fails, its error is thrown
 */
export async function within(
  work: Promise<void>,
  { limitMs, signal, afterSignalMs }: { readonly limitMs: number; readonly signal: AbortSignal; readonly afterSignalMs: number },
): Promise<boolean> {
  const timers: NodeJS.Timeout[] = [];
  const timer = (ms: number): Promise<false> => new Promise((resolve) => timers.push(setTimeout(resolve, ms, false)));
  const afterSignal = unlessAborted(signal, new Promise<never>(() => {})).then(() => timer(afterSignalMs));
  try {
    return await Promise.race([work.then(() => true), timer(limitMs), afterSignal]);
  } finally {
    for (const one of timers) clearTimeout(one);
  }
}
