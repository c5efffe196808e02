/** A worker's row: it counts its renewals, each third of its lease. */
export interface WorkerRow {
  readonly id: string;
  readonly renewals: string;
  /** 0 when it has ended. */
  readonly lease_ms: number;
}

/** Of the lease: a renewal counts from the look that has seen it, up to a third of a lease later. */
const SILENT_FOR = 0.9;

/**
 * Tells which workers are lost: those whose count has stood still for as long as their lease, by this process's own
 * monotonic clock. Wall clocks jump, after a suspend for example, and would end every lease at once.
 */
export class Lookout {
  #seen = new Map<string, { readonly renewals: string; readonly silentMs: number }>();
  #lookedAt = performance.now();

  lost(workers: readonly WorkerRow[]): string[] {
    const now = performance.now();
    const sinceMs = now - this.#lookedAt;
    this.#lookedAt = now;
    const seen = new Map<string, { readonly renewals: string; readonly silentMs: number }>();
    for (const { id, renewals, lease_ms: leaseMs } of workers) {
      const before = this.#seen.get(id);
      // One that was away itself, perhaps with all others, has not seen how they were.
      const silentMs = before?.renewals === renewals ? before.silentMs + Math.min(sinceMs, leaseMs / 2) : 0;
      if (leaseMs > 0 && silentMs < SILENT_FOR * leaseMs) seen.set(id, { renewals, silentMs });
    }
    this.#seen = seen;
    return workers.flatMap(({ id }) => (seen.has(id) ? [] : [id]));
  }
}
