/** How long the server may take, when it has much to do, until what it has accepted can be read. */
const LATE_MS = 60_000;

/** What was submitted here lately: the server knows it, even if it says that it does not. */
export class Accepted {
  /** By run id, oldest first. */
  readonly #runs = new Map<string, { readonly name: string; readonly atMs: number }>();

  add(id: string, name: string): void {
    const atMs = performance.now();
    for (const [old, { atMs: then }] of this.#runs) {
      if (then > atMs - LATE_MS) break;
      this.#runs.delete(old);
    }
    this.#runs.set(id, { name, atMs });
  }

  /** Its name, if it was accepted no longer ago. */
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
