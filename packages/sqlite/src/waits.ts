import type { RunRecord } from "@task-backend/core/adapter";
import type { Changes } from "./changes.ts";
import type { Database } from "./database.ts";
import { RECORD_COLUMNS, toRecord, type RecordRow } from "./mapping.ts";

interface Waiter {
  resolve(record: RunRecord): void;
  reject(error: unknown): void;
}

/** Settled runs that were not looked at yet are read in pieces of this many. */
const BATCH = 1_000;

/** All waits of a backend follow one stream, the settlements: what a wait costs does not depend on how many there are. */
export class Waits {
  readonly #database: Database;
  readonly #changes: Changes;
  readonly #waiters = new Map<string, Set<Waiter>>();
  #cursor = 0;

  constructor(database: Database, changes: Changes) {
    this.#database = database;
    this.#changes = changes;
    changes.subscribe(() => this.check());
  }

  /** Resolves with the settled record, at once when `read` finds it settled or finds none. */
  async wait(id: string, read: () => RunRecord | undefined, signal: AbortSignal | undefined): Promise<RunRecord | undefined> {
    // The place in the stream comes first: what settles between the two reads is then found in it.
    if (this.#waiters.size === 0) this.#cursor = this.#end();
    const record = this.#database.read(read);
    return !record || record.finishedAtMs !== undefined ? record : this.#follow(id, signal);
  }

  #end(): number {
    return this.#database.read(() => this.#database.get<{ seq: number | null }>("SELECT max(seq) AS seq FROM settlements")?.seq ?? 0);
  }

  #follow(id: string, signal: AbortSignal | undefined): Promise<RunRecord> {
    this.#changes.keepAlive(true);
    return new Promise<RunRecord>((resolve, reject) => {
      const waiter: Waiter = { resolve, reject };
      const waiters = this.#waiters.get(id) ?? new Set();
      this.#waiters.set(id, waiters.add(waiter));
      signal?.addEventListener(
        "abort",
        () => {
          waiters.delete(waiter);
          if (waiters.size === 0 && this.#waiters.get(id) === waiters) this.#forget(id);
          reject(signal.reason as Error);
        },
        { once: true },
      );
    });
  }

  /** Looks at what has settled since the last time. */
  check(): void {
    try {
      while (this.#waiters.size > 0 && this.#checkBatch() === BATCH) continue;
    } catch {
      // Locked: the next change or poll looks again.
    }
  }

  rejectAll(error: Error): void {
    for (const waiters of this.#waiters.values()) for (const waiter of waiters) waiter.reject(error);
    this.#waiters.clear();
  }

  /** How many settlements there were. */
  #checkBatch(): number {
    const settled = this.#database.all<{ seq: number; id: string | null }>(
      `SELECT settlements.seq, id FROM settlements LEFT JOIN runs ON runs.seq = run WHERE settlements.seq > ? ORDER BY settlements.seq LIMIT ${BATCH}`,
      this.#cursor,
    );
    for (const { seq, id } of settled) {
      if (id !== null) this.#settle(id);
      this.#cursor = seq;
    }
    return settled.length;
  }

  #settle(id: string): void {
    const waiters = this.#waiters.get(id);
    const row = waiters && this.#database.get<RecordRow>(`SELECT ${RECORD_COLUMNS} FROM runs WHERE id = ?`, id);
    if (!row) return;
    this.#forget(id);
    const record = toRecord(row);
    for (const waiter of waiters) waiter.resolve(record);
  }

  #forget(id: string): void {
    this.#waiters.delete(id);
    if (this.#waiters.size === 0) this.#changes.keepAlive(false);
  }
}
