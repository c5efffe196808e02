import type { Logger } from "../values/log.ts";
import { describeThrown } from "../values/error-record.ts";

/** The periodic work of an adapter's worker: renewing its lease, pruning, looking for lost runs. */
export class Intervals {
  readonly #log: Logger;
  readonly #timers = new Set<NodeJS.Timeout>();
  #stopped = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Repeats `work`, never twice at a time. An error is logged and does not end the repetition. After `stop()` nothing is started. */
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

  /** Starts nothing more; work that is under way ends by itself. */
  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#timers.clear();
  }
}
