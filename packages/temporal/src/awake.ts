const LOOK_MS = 250;
/** How long after the process wakes an answer from before may still arrive. */
const LATE_MS = 5_000;

/** Knows when this process was last frozen for so long that it may have lost its runs. */
export class Awake {
  readonly #frozenMs: number;
  #timer: NodeJS.Timeout | undefined;
  #lookedAtMs = performance.now();
  #wokeAtMs = -Infinity;

  constructor(frozenMs: number) {
    this.#frozenMs = frozenMs;
  }

  /** Starts to watch, until `close`. */
  watch(): void {
    this.#lookedAtMs = performance.now();
    this.#timer = setInterval(() => this.#look(), LOOK_MS).unref();
  }

  /** Whether the process has been awake since shortly before the given time of `performance.now()`. */
  since(takenAtMs: number): boolean {
    this.#look();
    return this.#wokeAtMs < takenAtMs - LATE_MS;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lookedAtMs > this.#frozenMs) this.#wokeAtMs = nowMs;
    this.#lookedAtMs = nowMs;
  }
}
