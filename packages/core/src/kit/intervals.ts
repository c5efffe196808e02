import type { Logger } from "../values/log.ts";
import { describeThrown } from "../values/error-record.ts";

/** What an adapter's worker does every so often: renew its lease, prune, look for what is lost. */
export class Intervals {
  readonly #log: Logger;
  readonly #timers = new Set<NodeJS.Timeout>();
  #stopped = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Repeats `work`, never twice at a time. What it throws is logged, and does not end it. Nothing after `stop()`. */
  every(ms: number, what: string, work: () => unknown): void {
    if (this.#stopped) return;
    let atWork = false;
    const timer = setInterval(() => {
      if (atWork) return;
      atWork = true;
      void Promise.resolve()
        .then(work)
        .catch((error: unknown) => this.#log.warn(`Cannot ${what}: ${describeThrown(error)}`))
        .finally(() => (atWork = false));
    }, ms);
    this.#timers.add(timer);
  }

  /** What is under way ends by itself. */
  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#timers.clear();
  }
}
