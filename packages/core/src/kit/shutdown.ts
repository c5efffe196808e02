import { MAX_TIMER_MS } from "../values/duration.ts";

export interface ShutdownSteps {
  /** Ends the attempts that are under way with the reason `"shutdown"`: the grace period is over. */
  abort(): void;
  /** Waits until nothing is under way, then frees the worker's resources. Called once. */
  finish(): Promise<void>;
}

/** The stop of a worker: no new claims, a grace period for running attempts, then the abort. A later call may shorten the grace period. */
export class Shutdown {
  readonly #steps: ShutdownSteps;
  #timer: NodeJS.Timeout | undefined;
  #stopped: Promise<void> | undefined;
  #aborting = false;
  #finished = false;

  constructor(steps: ShutdownSteps) {
    this.#steps = steps;
  }

  /** Whether the worker has stopped claiming runs. */
  get stopping(): boolean {
    return this.#stopped !== undefined;
  }

  /** Whether the grace period is over: an attempt that starts now must be aborted as well. */
  get aborting(): boolean {
    return this.#aborting;
  }

  stop(graceMs: number): Promise<void> {
    // A timer set now would outlive the worker.
    if (this.#finished && this.#stopped) return this.#stopped;
    clearTimeout(this.#timer);
    const abort = (): void => {
      this.#aborting = true;
      this.#steps.abort();
    };
    if (graceMs > 0) this.#timer = setTimeout(abort, Math.min(graceMs, MAX_TIMER_MS));
    // This is set before the steps run: they ask whether the worker is stopping.
    this.#stopped ??= Promise.resolve()
      .then(() => this.#steps.finish())
      .finally(() => {
        this.#finished = true;
        clearTimeout(this.#timer);
      });
    if (graceMs <= 0) abort();
    return this.#stopped;
  }
}
