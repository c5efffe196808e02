interface Timer {
  /** The number of its command. */
  readonly n: number;
  readonly dueMs: number;
}

/** The deadlines of a workflow's run that have neither fired nor been withdrawn. */
export class Timers {
  readonly #dueMs = new Map<number, number>();

  set(n: number, dueMs: number): void {
    this.#dueMs.set(n, dueMs);
  }

  has(n: number): boolean {
    return this.#dueMs.has(n);
  }

  delete(n: number): void {
    this.#dueMs.delete(n);
  }

  /** Whether one is due by then. */
  isDue(untilMs: number): boolean {
    return [...this.#dueMs.values()].some((dueMs) => dueMs <= untilMs);
  }

  /** The next one. */
  nextMs(): number | undefined {
    return this.#dueMs.size === 0 ? undefined : Math.min(...this.#dueMs.values());
  }

  /** Takes those that are due by then, in the order of their times. */
  takeDue(untilMs: number): readonly Timer[] {
    const due = [...this.#dueMs].flatMap(([n, dueMs]) => (dueMs <= untilMs ? [{ n, dueMs }] : []));
    for (const { n } of due) this.#dueMs.delete(n);
    return due.sort((a, b) => a.dueMs - b.dueMs || a.n - b.n);
  }
}
