/** Those who want to know of something. One that throws is told of and breaks neither the others nor the one who tells. */
export class Listeners {
  readonly #listeners = new Set<() => void>();
  readonly #report: (error: unknown) => void;

  constructor(report: (error: unknown) => void) {
    this.#report = report;
  }

  get size(): number {
    return this.#listeners.size;
  }

  /** Answers with what ends it. */
  add(listener: () => void): () => void {
    // A function of its own, so that the same listener can be added twice.
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
