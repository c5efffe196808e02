import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { withTimeout } from "@task-backend/core/adapter";

/**
 * A run's execution timeout: if no worker extends it, the engine starts the run again. Workers themselves are watched by heartbeats;
 * this is for a run that was assigned to a living worker and never reached it, for example because a connection broke.
 */
export const LEASE = "60s";
const LEASE_MS = 60_000;
const BEAT_MS = 15_000;
const CALL_MS = 10_000;

interface Held {
  readonly runId: string;
  /** The start, by the monotonic clock. */
  readonly sinceMs: number;
  extendedMs: number;
  busy: boolean;
}

/** Extends the timeouts of the runs that a worker holds. */
export class Leases {
  readonly #client: HatchetClient;
  readonly #held = new Set<Held>();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(client: HatchetClient) {
    this.#client = client;
  }

  /** Extends the timeout for as long as the work takes. Most work ends before the first beat, and costs nothing. */
  async during<T>(runId: string, work: () => Promise<T>): Promise<T> {
    const held: Held = { runId, sinceMs: performance.now(), extendedMs: 0, busy: false };
    this.#held.add(held);
    if (!this.#stopped) this.#timer ??= setInterval(() => this.#beat(), BEAT_MS).unref();
    try {
      return await work();
    } finally {
      this.#held.delete(held);
      if (this.#held.size === 0) {
        clearInterval(this.#timer);
        this.#timer = undefined;
      }
    }
  }

  /** Stops extending: runs that are still held go to other workers. */
  stop(): void {
    clearInterval(this.#timer);
    this.#stopped = true;
  }

  #beat(): void {
    const now = performance.now();
    for (const held of this.#held) {
      // This includes the time that earlier calls failed to add.
      const missingMs = Math.ceil(now - held.sinceMs - held.extendedMs);
      if (!held.busy && missingMs >= BEAT_MS / 2) void this.#extend(held, Math.min(missingMs, 10 * LEASE_MS));
    }
  }

  async #extend(held: Held, byMs: number): Promise<void> {
    held.busy = true;
    try {
      await withTimeout(this.#client.dispatcher.refreshTimeout(`${byMs}ms`, held.runId), CALL_MS, () => new Error("late"));
      held.extendedMs += byMs;
    } catch {
      // The next beat asks for more time.
    } finally {
      held.busy = false;
    }
  }
}
