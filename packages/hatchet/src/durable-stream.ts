import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";

/** The hidden part of the SDK's listener that we need. */
interface Internals {
  readonly _running: boolean;
  readonly _requestQueue: unknown[];
  readonly _receiveAbort: AbortController;
  _requestNotify: (() => void) | undefined;
  _requestIterator(): AsyncGenerator;
}

/** Replaces the SDK's request loop, which adds a listener to its stream's signal for each wait and removes none: ours adds one in all. */
export function withOneListener({ durableListener }: HatchetClient): void {
  const listener = durableListener as unknown as Internals;
  listener._requestIterator = () => requests(listener);
}

async function* requests(listener: Internals): AsyncGenerator {
  const { _requestQueue: queue, _receiveAbort: stream } = listener;
  let notify = (): void => {};
  const onAbort = (): void => notify();
  stream.signal.addEventListener("abort", onAbort, { once: true });
  try {
    while (listener._running && !stream.signal.aborted) {
      while (queue.length > 0) yield queue.shift();
      await new Promise<void>((resolve) => {
        notify = resolve;
        listener._requestNotify = resolve;
        if (queue.length > 0 || stream.signal.aborted) resolve();
      });
    }
  } finally {
    stream.signal.removeEventListener("abort", onAbort);
  }
}
