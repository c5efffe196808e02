import type { RunId } from "../port/port.ts";

interface Waiter<T> {
  resolve(value: T): void;
  reject(error: unknown): void;
}

/** The callers that wait for runs to settle, by the run's id. One stream of the engine serves all of them. */
export class Waiters<T> {
  readonly #waiters = new Map<RunId, Set<Waiter<T>>>();
  readonly #onChange: (waiting: boolean) => void;

  /** @param onChange called when the first caller starts to wait and when the last stops: to keep the process alive, or a poll going */
  constructor(onChange: (waiting: boolean) => void = () => {}) {
    this.#onChange = onChange;
  }

  get size(): number {
    return this.#waiters.size;
  }

  /** The runs that callers wait for. */
  get ids(): readonly RunId[] {
    return [...this.#waiters.keys()];
  }

  has(id: RunId): boolean {
    return this.#waiters.has(id);
  }

  /** Resolves with the value that `settle` gives; rejects with the reason of the signal. */
  follow(id: RunId, signal: AbortSignal | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const waiters = this.#waiters.get(id) ?? new Set();
      const onAbort = (): void => {
        waiters.delete(waiter);
        if (waiters.size === 0 && this.#waiters.get(id) === waiters) this.#forget(id);
        reject(signal?.reason as Error);
      };
      const ended = (): void => signal?.removeEventListener("abort", onAbort);
      const waiter: Waiter<T> = {
        resolve: (value) => (ended(), resolve(value)),
        reject: (error) => (ended(), reject(error)),
      };
      const first = this.#waiters.size === 0;
      this.#waiters.set(id, waiters.add(waiter));
      signal?.addEventListener("abort", onAbort, { once: true });
      if (first) this.#onChange(true);
    });
  }

  settle(id: RunId, value: T): void {
    const waiters = this.#waiters.get(id);
    if (!waiters) return;
    this.#forget(id);
    for (const waiter of waiters) waiter.resolve(value);
  }

  /** Rejects the callers that wait for this run: it cannot be read. */
  fail(id: RunId, error: unknown): void {
    const waiters = this.#waiters.get(id);
    if (!waiters) return;
    this.#forget(id);
    for (const waiter of waiters) waiter.reject(error);
  }

  rejectAll(error: Error): void {
    const all = [...this.#waiters.values()];
    for (const id of this.ids) this.#forget(id);
    for (const waiters of all) for (const waiter of waiters) waiter.reject(error);
  }

  #forget(id: RunId): void {
    this.#waiters.delete(id);
    if (this.#waiters.size === 0) this.#onChange(false);
  }
}
