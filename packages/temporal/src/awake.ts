const LOOK_MS = 250;
/** How long after a wake what was taken before it may still arrive. */
const LATE_MS = 5_000;

/** Knows when this process was last frozen for so long that what it had taken may be another's. */
export class Awake {
  readonly #frozenMs: number;
  #timer: NodeJS.Timeout | undefined;
  #lookedAtMs = performance.now();
  #wokeAtMs = -Infinity;

  constructor(frozenMs: number) {
    this.#frozenMs = frozenMs;
  }

  /** From now on, until it is closed. */
  watch(): void {
    this.#lookedAtMs = performance.now();
    this.#timer = setInterval(() => this.#look(), LOOK_MS).unref();
  }

  /** Whether it has been all the time since shortly before then, of `performance.now()`. */
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
