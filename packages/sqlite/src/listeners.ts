/** A set of listeners. The error of one is reported, and stops neither the other listeners nor the caller. */
export class Listeners {
  readonly #listeners = new Set<() => void>();
  readonly #report: (error: unknown) => void;

  constructor(report: (error: unknown) => void) {
    this.#report = report;
  }

  get size(): number {
    return this.#listeners.size;
  }

  /** Adds a listener; the returned function removes it. */
  add(listener: () => void): () => void {
    // A new function, so that the same listener can be added twice.
    const added = (): void => listener();
    this.#listeners.add(added);
    return () => this.#listeners.delete(added);
  }

  tell(): void {
    for (const listener of this.#listeners) {
      try {
        listener();
      } catch (error) {
        this.#report(error);
      }
    }
  }

  clear(): void {
    this.#listeners.clear();
  }
}
