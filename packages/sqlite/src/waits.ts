import { Waiters, type RunRecord } from "@task-backend/core/adapter";
import type { Changes } from "./changes.ts";
import type { Database } from "./database.ts";
import { isBusy } from "./errors.ts";
import { SETTLED } from "./schema.ts";

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
  readonly #waiters = new Waiters<RunRecord | undefined>((waiting) => this.#onChange(waiting));
  #cursor = 0;
  #net: NodeJS.Timeout | undefined;
  /** Of the waits, the first that the net looks at next. */
  #netFrom = 0;

  constructor(database: Database, changes: Changes, read: Read) {
    this.#database = database;
    this.#changes = changes;
    this.#read = read;
    changes.subscribe(() => this.check());
  }

  /** Resolves with the settled record, with undefined when there is none or no longer. */
  async wait(id: string, signal: AbortSignal | undefined): Promise<RunRecord | undefined> {
    // The place in the stream comes first, and the waiter is in it before the record is read: nothing falls between the two.
    if (this.#waiters.size === 0) this.#cursor = this.#end();
    const settled = this.#waiters.follow(id, signal);
    this.#look(id, false, (error) => this.#waiters.fail(id, error));
    return settled;
  }

  /** Looks at what has settled since the last time. */
  check(): void {
    try {
      while (this.#waiters.size > 0 && this.#checkBatch() === BATCH) continue;
    } catch (error) {
      // Locked: the next change or poll looks again. Anything else is told by whoever asked for the look.
      if (!isBusy(error)) throw error;
    }
  }

  /** Ends every wait. */
  rejectAll(error: Error): void {
    this.#waiters.rejectAll(error);
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
      if (record?.finishedAtMs !== undefined || !record) this.#waiters.settle(id, record);
    }, failed);
  }

  #drawIn(): void {
    const all = this.#waiters.ids;
    if (this.#netFrom >= all.length) this.#netFrom = 0;
    const ids = all.slice(this.#netFrom, this.#netFrom + NET_SIZE);
    this.#netFrom += NET_SIZE;
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

  /** Without waits nothing is left running. */
  #onChange(waiting: boolean): void {
    this.#changes.keepAlive(waiting);
    clearInterval(this.#net);
    this.#net = waiting ? setInterval(() => this.#drawIn(), NET_EVERY_MS).unref() : undefined;
  }
}
