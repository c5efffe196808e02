/** How long a busy server may take until an accepted run can be read. */
const LATE_MS = 60_000;

/** The runs that were submitted here recently: the server has accepted them, even if it does not find them yet. */
export class Accepted {
  /** The runs by id, oldest first. */
  readonly #runs = new Map<string, { readonly name: string; readonly atMs: number }>();

  add(id: string, name: string): void {
    const atMs = performance.now();
    for (const [old, { atMs: then }] of this.#runs) {
      if (then > atMs - LATE_MS) break;
      this.#runs.delete(old);
    }
    this.#runs.set(id, { name, atMs });
  }

  /** The run's name, if it was accepted within the given time. */
  within(ms: number, id: string): string | undefined {
    const run = this.#runs.get(id);
    return run && run.atMs > performance.now() - ms ? run.name : undefined;
  }

  has(id: string): boolean {
    return this.within(LATE_MS, id) !== undefined;
  }

  clear(): void {
    this.#runs.clear();
  }
}
