import { BackendUnavailableError } from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import { isBusy, toUnavailable } from "./errors.ts";

interface Write {
  readonly run: () => unknown;
  readonly deadline: number;
  /** Whether it comes after the other writes of the transaction. */
  readonly last: boolean;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

const RETRY_MS = 15;

/**
 * Puts the writes of one turn of the event loop into one transaction, so that all share one sync of the disk.
 * Each write still succeeds or fails alone.
 */
export class Writer {
  /**
   * Called after a commit, once its writers' promises have resolved. The transaction is over by then, so a listener can neither undo
   * the commit nor repeat it.
   */
  onCommit: () => void = () => {};
  /** Called right after each commit, for those outside of this process. Must not throw. */
  ring: () => void = () => {};
  readonly #database: Database;
  readonly #lockTimeoutMs: number;
  #queue: Write[] = [];
  #scheduled = false;
  #telling = false;
  #closed = false;

  constructor(database: Database, lockTimeoutMs: number) {
    this.#database = database;
    this.#lockTimeoutMs = lockTimeoutMs;
  }

  /** Whether a transaction is about to begin anyway. */
  get pending(): boolean {
    return this.#queue.some((write) => !write.last);
  }

  /**
   * Runs `run` inside a transaction; resolves with its result once that is committed.
   * @param order `last`: it comes after the other writes of the transaction
   * @throws BackendUnavailableError
   */
  write<T>(run: () => T, order: "any" | "last" = "any"): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#closed) return reject(new BackendUnavailableError(`The sqlite file ${this.#database.file} is closed.`));
      const deadline = Date.now() + this.#lockTimeoutMs;
      this.#queue.push({ run, deadline, last: order === "last", resolve, reject });
      this.#schedule();
    });
  }

  /** Commits the queued writes and accepts no more. */
  close(): void {
    this.#flush();
    this.#closed = true;
    const error = new BackendUnavailableError(`The sqlite file ${this.#database.file} was closed while it was locked.`);
    for (const write of this.#take()) write.reject(error);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#flush());
  }

  #take(): Write[] {
    const [last, first] = [this.#queue.filter((write) => write.last), this.#queue.filter((write) => !write.last)];
    this.#queue = [];
    return [...first, ...last];
  }

  #flush(): void {
    this.#scheduled = false;
    const writes = this.#take();
    if (writes.length === 0) return;
    try {
      this.#commit(writes);
    } catch (error) {
      if (isBusy(error)) this.#again(writes, error);
      else if (writes.length === 1) writes[0]?.reject(toUnavailable(error, this.#database.file));
      else for (const write of writes) this.#alone(write);
    }
  }

  /** Commits one write of a failed transaction by itself, so that only the write at fault is refused. */
  #alone(write: Write): void {
    try {
      this.#commit([write]);
    } catch (error) {
      if (isBusy(error)) this.#again([write], error);
      else write.reject(toUnavailable(error, this.#database.file));
    }
  }

  #again(writes: readonly Write[], error: unknown): void {
    const now = Date.now();
    for (const write of writes) if (write.deadline <= now) write.reject(toUnavailable(error, this.#database.file));
    this.#queue = [...writes.filter((write) => write.deadline > now), ...this.#queue];
    if (this.#queue.length === 0 || this.#closed) return;
    this.#scheduled = true;
    setTimeout(() => this.#flush(), RETRY_MS * (0.5 + Math.random()));
  }

  #commit(writes: readonly Write[]): void {
    const database = this.#database;
    database.run("BEGIN IMMEDIATE");
    let answers: unknown[];
    try {
      answers = writes.map((write) => write.run());
      database.run("COMMIT");
    } catch (error) {
      try {
        database.run("ROLLBACK");
      } catch {
        // SQLite has already rolled back, as it does when the disk is full.
      }
      throw error;
    }
    this.ring();
    for (const [index, write] of writes.entries()) write.resolve(answers[index]);
    this.#tell();
  }

  #tell(): void {
    if (this.#telling) return;
    this.#telling = true;
    queueMicrotask(() => {
      this.#telling = false;
      if (!this.#closed) this.onCommit();
    });
  }
}
