interface Timer {
  /** The number of its command. */
  readonly n: number;
  readonly dueMs: number;
}

/** The timers of a workflow's run that have neither fired nor been cancelled. */
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

  /** Whether a timer is due at the given time. */
  isDue(untilMs: number): boolean {
    return [...this.#dueMs.values()].some((dueMs) => dueMs <= untilMs);
  }

  /** The due time of the next timer. */
  nextMs(): number | undefined {
    return this.#dueMs.size === 0 ? undefined : Math.min(...this.#dueMs.values());
  }

  /** Removes and returns the timers that are due at the given time, in order. */
  takeDue(untilMs: number): readonly Timer[] {
    const due = [...this.#dueMs].flatMap(([n, dueMs]) => (dueMs <= untilMs ? [{ n, dueMs }] : []));
    for (const { n } of due) this.#dueMs.delete(n);
    return due.sort((a, b) => a.dueMs - b.dueMs || a.n - b.n);
  }
}
