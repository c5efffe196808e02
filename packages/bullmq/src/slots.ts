/** What a worker can run at a time, shared by its queues. First come, first served. */
export class Slots {
  #free: number;
  readonly #waiting: { readonly key: unknown; readonly resolve: () => void }[] = [];

  constructor(total: number) {
    this.#free = total;
  }

  /** Resolves when one is free, without taking it. */
  async available(key: unknown): Promise<void> {
    while (this.#free <= 0) await new Promise<void>((resolve) => this.#waiting.push({ key, resolve }));
  }

  take(): boolean {
    if (this.#free <= 0) return false;
    this.#free--;
    return true;
  }

  give(): void {
    this.#free++;
    this.#waiting.shift()?.resolve();
  }

  /** Whether one who holds a slot should give it away: others than `key` wait for one. */
  wanted(key: unknown): boolean {
    return this.#waiting.some((one) => one.key !== key);
  }

  wakeAll(): void {
    this.#free += this.#waiting.length;
    for (const { resolve } of this.#waiting.splice(0)) resolve();
  }
}
