import type { ActivitySlotInfo, CustomSlotSupplier, SlotPermit, SlotReserveContext } from "@temporalio/worker";

/** First come, first served. */
class Semaphore {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(total: number) {
    this.#free = total;
  }

  tryTake(): boolean {
    if (this.#free <= 0) return false;
    this.#free--;
    return true;
  }

  async take(abortSignal?: AbortSignal): Promise<void> {
    while (!this.tryTake()) await this.#given(abortSignal);
  }

  give(): void {
    this.#free++;
    const [next] = this.#waiting;
    if (!next) return;
    this.#waiting.delete(next);
    next();
  }

  #given(abortSignal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(resolve);
      abortSignal?.addEventListener(
        "abort",
        () => {
          this.#waiting.delete(resolve);
          reject(abortSignal.reason as Error);
        },
        { once: true },
      );
    });
  }
}

/** What the SDK keeps for a queue that is idle: one that it polls with, and the next. */
const IDLE_SLOTS = 2;

/** How many slots several queues share. */
export function sharedSlots(concurrency: number, queues: number): number {
  return concurrency + IDLE_SLOTS * (queues - 1);
}

/**
 * The slots of a worker's queues. A slot is taken before a queue is polled and kept while the poll waits. So that all that may run
 * can run on one queue while the others are idle, there are more of them, and the gate sees to the total.
 */
export class SharedSlots implements CustomSlotSupplier<ActivitySlotInfo> {
  readonly type = "custom";
  readonly #slots: Semaphore;
  #closed = false;

  constructor(total: number) {
    this.#slots = new Semaphore(total);
  }

  /** No queue is polled any more. */
  close(): void {
    this.#closed = true;
  }

  async reserveSlot(_context: SlotReserveContext, abortSignal: AbortSignal): Promise<SlotPermit> {
    await this.#slots.take(abortSignal);
    if (this.#closed) await aborted(abortSignal);
    return {};
  }

  tryReserveSlot(): SlotPermit | null {
    return !this.#closed && this.#slots.tryTake() ? {} : null;
  }

  markSlotUsed(): void {}

  releaseSlot(): void {
    this.#slots.give();
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
  });
}

/** How many attempts run at a time, in all queues of a worker together. */
export class Gate {
  readonly #semaphore: Semaphore;

  constructor(total: number) {
    this.#semaphore = new Semaphore(total);
  }

  /** False when none of them has ended in that time. */
  async enter(timeoutMs: number): Promise<boolean> {
    if (this.#semaphore.tryTake()) return true;
    try {
      await this.#semaphore.take(AbortSignal.timeout(timeoutMs));
      return true;
    } catch {
      return false;
    }
  }

  leave(): void {
    this.#semaphore.give();
  }
}
