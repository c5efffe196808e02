/** A worker's row. The worker counts its renewals there, one each third of its lease. */
export interface WorkerRow {
  readonly id: string;
  readonly renewals: string;
  /** 0 when the worker has ended. */
  readonly lease_ms: number;
}

/** The part of a lease after which a silent worker is lost: a renewal is noticed up to a third of a lease late. */
const SILENT_FOR = 0.9;

/**
 * Finds lost workers: their renewal count has not changed for as long as their lease, by this process's own
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
      // A process that was itself suspended missed renewals, so a long time since its last look counts as half a lease at most.
      const silentMs = before?.renewals === renewals ? before.silentMs + Math.min(sinceMs, leaseMs / 2) : 0;
      if (leaseMs > 0 && silentMs < SILENT_FOR * leaseMs) seen.set(id, { renewals, silentMs });
    }
    this.#seen = seen;
    return workers.flatMap(({ id }) => (seen.has(id) ? [] : [id]));
  }
}
