/** What a worker can run at a time, shared by its queues. First come, first served. */
export class Slots {
  #free: number;
  #closed = false;
  #waiting: { readonly key: unknown; readonly resolve: () => void }[] = [];

  constructor(total: number) {
    this.#free = total;
  }

  get free(): boolean {
    return this.#free > 0;
  }

  /** Resolves when one is free, without taking it, or when nothing is to be taken any more. */
  async available(key: unknown): Promise<void> {
    while (!this.free && !this.#closed) await new Promise<void>((resolve) => this.#waiting.push({ key, resolve }));
  }

  take(): boolean {
    if (!this.free) return false;
    this.#free--;
    return true;
  }

  /** Wakes all who wait, in their order: the first of them may have no use for it. */
  give(): void {
    this.#free++;
    this.#wake();
  }

  /** Whether one who holds a slot should release it: others than `key` wait for one. */
  wanted(key: unknown): boolean {
    return this.#waiting.some((one) => one.key !== key);
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { resolve } of waiting) resolve();
  }
}
