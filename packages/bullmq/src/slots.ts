/** The slots of a worker, shared by its queues. Waiters are served in order. */
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

  /** Resolves when a slot is free, without taking it, or when the slots are closed. */
  async available(key: unknown): Promise<void> {
    while (!this.free && !this.#closed) await new Promise<void>((resolve) => this.#waiting.push({ key, resolve }));
  }

  take(): boolean {
    if (!this.free) return false;
    this.#free--;
    return true;
  }

  /** Frees a slot and wakes all waiters in their order: the first may not need it. */
  give(): void {
    this.#free++;
    this.#wake();
  }

  /** Whether the holder of a slot should free it, because a waiter with another key needs one. */
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
