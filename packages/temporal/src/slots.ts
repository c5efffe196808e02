import type { ActivitySlotInfo, CustomSlotSupplier, SlotPermit, SlotReserveContext } from "@temporalio/worker";

/** A semaphore that serves waiters in order. */
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

/** The slots that the SDK holds for an idle queue: one for its poll, and the next one. */
const IDLE_SLOTS = 2;

/** How many slots several queues share. */
export function sharedSlots(concurrency: number, queues: number): number {
  return concurrency + IDLE_SLOTS * (queues - 1);
}

/**
 * The slots of a worker's queues. A slot is taken before a queue is polled, and kept while the poll waits. There are more slots than
 * attempts may run, so that one queue can run all of them while the others are idle; the gate limits the total.
 */
export class SharedSlots implements CustomSlotSupplier<ActivitySlotInfo> {
  readonly type = "custom";
  readonly #slots: Semaphore;
  #closed = false;

  constructor(total: number) {
    this.#slots = new Semaphore(total);
  }

  /** Closes the slots: no queue is polled any more. */
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

/** Limits the attempts at a time in all queues of a worker. */
export class Gate {
  readonly #semaphore: Semaphore;

  constructor(total: number) {
    this.#semaphore = new Semaphore(total);
  }

  /** Enters; false when no attempt has ended within the time. */
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
