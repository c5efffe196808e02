import { closeSync, openSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { BackendUnavailableError } from "@task-backend/core/adapter";
import { isBeyondNumbers, openConnection, sqliteVersion, type Connection, type Statement, type Value } from "./driver.ts";
import { DamagedRowError, isBusy, toUnavailable } from "./errors.ts";
import type { SqliteSettings } from "./options.ts";
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts";
import { Writer } from "./writer.ts";

/** How long SQLite itself waits for a lock, which blocks the event loop; after that we wait without blocking. */
const BLOCKING_WAIT_MS = 50;

/** One connection: it prepares each statement once, and puts writes into shared transactions. */
export class Database {
  readonly file: string;
  readonly writer: Writer;
  readonly #connection: Connection;
  readonly #statements = new Map<string, Statement>();

  /**
   * @throws BackendUnavailableError when the file cannot be used, ConfigurationError when no SQLite is new enough
   * @throws the reason of `signal`, soon after it is aborted; nothing is left open then
   */
  static async open(settings: SqliteSettings, signal?: AbortSignal): Promise<Database> {
    const { file, lockTimeoutMs } = settings;
    const deadline = Date.now() + lockTimeoutMs;
    let database: Database | undefined;
    for (;;) {
      try {
        signal?.throwIfAborted();
        // All tries share one connection: statements that the package has prepared stay open until they are collected, even after a close.
        database ??= new Database(settings);
        database.#prepareFile(settings);
        return database;
      } catch (error) {
        if (!isBusy(error) || Date.now() > deadline) {
          if (database) database.#connection.close();
          throw signal?.aborted ? error : toUnavailable(error, file);
        }
        await pause(20 + 30 * Math.random());
      }
    }
  }

  private constructor({ file, lockTimeoutMs }: SqliteSettings) {
    this.file = file;
    makePrivate(file);
    this.#connection = openConnection(file, BLOCKING_WAIT_MS);
    this.writer = new Writer(this, lockTimeoutMs);
  }

  get version(): string {
    return sqliteVersion(this.#connection);
  }

  /** @throws DamagedRowError for a number that JavaScript cannot hold; else the error of SQLite */
  get<Row>(sql: string, ...values: Value[]): Row | undefined {
    try {
      return this.#statement(sql).get(...values) as Row | undefined;
    } catch (error) {
      throw readable(error);
    }
  }

  /** @throws DamagedRowError for a number that JavaScript cannot hold; else the error of SQLite */
  all<Row>(sql: string, ...values: Value[]): Row[] {
    try {
      return this.#statement(sql).all(...values) as Row[];
    } catch (error) {
      throw readable(error);
    }
  }

  /** Runs a statement and returns the number of changed rows. */
  run(sql: string, ...values: Value[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /**
   * Reads outside of a transaction.
   * @throws DamagedRowError for a row that the caller must settle, BackendUnavailableError for any other error
   */
  read<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw error instanceof DamagedRowError ? error : toUnavailable(error, this.file);
    }
  }

  /** A number that changes when another connection has written. */
  get dataVersion(): number {
    return this.get<{ data_version: number }>("PRAGMA data_version")?.data_version ?? 0;
  }

  close(): void {
    try {
      // The file is then complete without its log, even when another connection is still open and idle.
      if (this.file !== ":memory:") this.all("PRAGMA wal_checkpoint(TRUNCATE)");
    } catch {
      // Other connections still use the log, or the disk is in trouble: the log is read at the next start.
    }
    this.#statements.clear();
    this.#connection.close();
  }

  #statement(sql: string): Statement {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#connection.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #prepareFile({ file, synchronous }: SqliteSettings): void {
    // This needs one snapshot: another process may be creating the file at this moment.
    this.#transaction("BEGIN", () => this.#checkOwner());
    if (file !== ":memory:") this.#connection.exec("PRAGMA journal_mode = WAL");
    this.#connection.exec(`PRAGMA synchronous = ${synchronous.toUpperCase()}`);
    if (this.#pragma("user_version") === MIGRATIONS.length) return;
    this.#transaction("BEGIN IMMEDIATE", () => {
      // Another process may have migrated the file while this one waited for the lock.
      for (const step of MIGRATIONS.slice(this.#pragma("user_version"))) this.#connection.exec(step);
      this.#connection.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${MIGRATIONS.length}`);
    });
  }

  /** Runs a transaction and always ends it: a connection that is closed inside one may keep its locks. */
  #transaction(begin: string, act: () => void): void {
    this.#connection.exec(begin);
    try {
      act();
      this.#connection.exec("COMMIT");
    } catch (error) {
      try {
        this.#connection.exec("ROLLBACK");
      } catch {
        // SQLite has already rolled back.
      }
      throw error;
    }
  }

  #checkOwner(): void {
    const owner = this.#pragma("application_id");
    const version = this.#pragma("user_version");
    const tables = this.get<{ count: number }>("SELECT count(*) AS count FROM sqlite_schema")?.count ?? 0;
    if (owner !== APPLICATION_ID && (owner !== 0 || tables > 0)) {
      throw new BackendUnavailableError(`The sqlite file ${this.file} belongs to another application; give the path of a file of its own.`);
    }
    if (version > MIGRATIONS.length) {
      throw new BackendUnavailableError(
        `The sqlite file ${this.file} was written by a newer @task-backend/sqlite (schema ${version}, this one knows ${MIGRATIONS.length}); upgrade the package in this process.`,
      );
    }
  }

  #pragma(name: string): number {
    return this.get<Record<string, number>>(`PRAGMA ${name}`)?.[name] ?? 0;
  }
}

/** Creates the file for its owner only, because it holds the inputs of tasks: SQLite would let all users read it and its log. */
function makePrivate(file: string): void {
  if (file === ":memory:") return;
  try {
    // An existing file is never opened: closing it would drop the locks that other connections of this process hold on it.
    closeSync(openSync(file, "wx", 0o600));
  } catch {
    // The file exists, or SQLite will say why it cannot be created.
  }
}

function readable(error: unknown): unknown {
  return isBeyondNumbers(error) ? new DamagedRowError("It holds a number beyond 2^53.") : error;
}
