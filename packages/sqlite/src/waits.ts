import type { RunRecord } from "@task-backend/core/adapter";
import type { Changes } from "./changes.ts";
import type { Database } from "./database.ts";
import { SETTLED } from "./schema.ts";

interface Waiter {
  resolve(record: RunRecord | undefined): void;
  reject(error: unknown): void;
}

/** Gives the record of a run as it stands; `past`: also when its retention is over and it was not pruned yet. */
type Read = (id: string, past: boolean) => Promise<RunRecord | undefined>;

/** Settled runs that were not looked at yet are read in pieces of this many. */
const BATCH = 1_000;
/** How often the net under the stream is drawn in, and for how many waits at a time. */
const NET_EVERY_MS = 1_000;
const NET_SIZE = 500;

/**
 * All waits of a backend follow one stream, the settlements: what a wait costs does not depend on how many there are. Under it is
 * a net for what the stream cannot tell of: records that were pruned before anybody looked, or deleted by somebody.
 */
export class Waits {
  readonly #database: Database;
  readonly #changes: Changes;
  readonly #read: Read;
  /** In the order in which the net looks at them. */
  readonly #waiters = new Map<string, Set<Waiter>>();
  #cursor = 0;
  #net: NodeJS.Timeout | undefined;

  constructor(database: Database, changes: Changes, read: Read) {
    this.#database = database;
    this.#changes = changes;
    this.#read = read;
    changes.subscribe(() => this.check());
  }

  /** Resolves with the settled record, with undefined when there is none or no longer. */
  wait(id: string, signal: AbortSignal | undefined): Promise<RunRecord | undefined> {
    return new Promise<RunRecord | undefined>((resolve, reject) => {
      signal?.throwIfAborted();
      // The place in the stream comes first, and the waiter is in it before the record is read: nothing falls between the two.
      if (this.#waiters.size === 0) this.#cursor = this.#end();
      const waiter: Waiter = { resolve, reject };
      this.#add(id, waiter);
      signal?.addEventListener(
        "abort",
        () => {
          this.#drop(id, waiter);
          reject(signal.reason as Error);
        },
        { once: true },
      );
      this.#look(id, false, (error) => {
        this.#drop(id, waiter);
        reject(error);
      });
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

  /** Ends every wait. */
  rejectAll(error: Error): void {
    for (const waiters of this.#waiters.values()) for (const waiter of waiters) waiter.reject(error);
    this.#waiters.clear();
    this.#rest();
  }

  #end(): number {
    return this.#database.read(() => this.#database.get<{ seq: number | null }>("SELECT max(seq) AS seq FROM settlements")?.seq ?? 0);
  }

  /** How many settlements there were. */
  #checkBatch(): number {
    const settled = this.#database.all<{ seq: number; id: string | null }>(
      `SELECT settlements.seq, id FROM settlements LEFT JOIN runs ON runs.seq = run WHERE settlements.seq > ? ORDER BY settlements.seq LIMIT ${BATCH}`,
      this.#cursor,
    );
    for (const { seq, id } of settled) {
      if (id !== null && this.#waiters.has(id)) this.#look(id);
      this.#cursor = seq;
    }
    return settled.length;
  }

  /** Reads a run that may be settled or gone, and tells those who wait for it. What cannot be read now is found by the net. */
  #look(id: string, past = true, failed: (error: unknown) => void = () => {}): void {
    this.#read(id, past).then((record) => {
      if (record && record.finishedAtMs === undefined) return;
      const waiters = this.#waiters.get(id) ?? [];
      this.#waiters.delete(id);
      this.#rest();
      for (const waiter of waiters) waiter.resolve(record);
    }, failed);
  }

  /** The waits that were looked at the longest ago come first. */
  #drawIn(): void {
    const ids = [...this.#waiters.keys()].slice(0, NET_SIZE);
    for (const id of ids) {
      const waiters = this.#waiters.get(id) as Set<Waiter>;
      this.#waiters.delete(id);
      this.#waiters.set(id, waiters);
    }
    try {
      const over = this.#database.all<{ id: string }>(
        `SELECT value AS id FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM runs WHERE id = value AND state <> ${SETTLED})`,
        JSON.stringify(ids),
      );
      for (const { id } of over) this.#look(id);
    } catch {
      // Locked: drawn in again.
    }
  }

  // ---- who waits ----

  #add(id: string, waiter: Waiter): void {
    const waiters = this.#waiters.get(id);
    if (waiters) waiters.add(waiter);
    else this.#waiters.set(id, new Set([waiter]));
    this.#changes.keepAlive(true);
    this.#net ??= setInterval(() => this.#drawIn(), NET_EVERY_MS).unref();
  }

  #drop(id: string, waiter: Waiter): void {
    const waiters = this.#waiters.get(id);
    if (waiters?.delete(waiter) && waiters.size === 0) this.#waiters.delete(id);
    this.#rest();
  }

  /** Without waits nothing is left running. */
  #rest(): void {
    if (this.#waiters.size > 0) return;
    this.#changes.keepAlive(false);
    clearInterval(this.#net);
    this.#net = undefined;
  }
}
