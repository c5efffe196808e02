import { closeSync, openSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { BackendUnavailableError } from "@task-backend/core/adapter";
import { openConnection, sqliteVersion, type Connection, type Statement, type Value } from "./driver.ts";
import { DamagedRowError, isBusy, toUnavailable } from "./errors.ts";
import type { SqliteSettings } from "./options.ts";
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts";
import { Writer } from "./writer.ts";

/** How long SQLite itself waits for a lock, with the event loop standing still; after that we wait without blocking. */
const BLOCKING_WAIT_MS = 50;

/** One connection: statements prepared once per text, and writes that share transactions. */
export class Database {
  readonly file: string;
  readonly writer: Writer;
  readonly #connection: Connection;
  readonly #statements = new Map<string, Statement>();

  /**
   * @throws BackendUnavailableError when the file cannot be used, ConfigurationError when there is no SQLite that may
   * @throws the reason of `signal`, soon after it is aborted; nothing is left open then
   */
  static async open(settings: SqliteSettings, signal?: AbortSignal): Promise<Database> {
    const { file, lockTimeoutMs } = settings;
    const deadline = Date.now() + lockTimeoutMs;
    for (;;) {
      signal?.throwIfAborted();
      try {
        return new Database(settings);
      } catch (error) {
        if (!isBusy(error) || Date.now() > deadline) throw toUnavailable(error, file);
        await pause(20 + 30 * Math.random());
      }
    }
  }

  private constructor(settings: SqliteSettings) {
    this.file = settings.file;
    makePrivate(settings.file);
    this.#connection = openConnection(settings.file, BLOCKING_WAIT_MS);
    try {
      this.#prepareFile(settings);
    } catch (error) {
      this.#connection.close();
      throw error;
    }
    this.writer = new Writer(this, settings.lockTimeoutMs);
  }

  get version(): string {
    return sqliteVersion(this.#connection);
  }

  /** @throws DamagedRowError for a number that JavaScript cannot hold; else what SQLite throws */
  get<Row>(sql: string, ...values: Value[]): Row | undefined {
    try {
      return this.#statement(sql).get(...values) as Row | undefined;
    } catch (error) {
      throw readable(error);
    }
  }

  /** @throws DamagedRowError for a number that JavaScript cannot hold; else what SQLite throws */
  all<Row>(sql: string, ...values: Value[]): Row[] {
    try {
      return this.#statement(sql).all(...values) as Row[];
    } catch (error) {
      throw readable(error);
    }
  }

  /** The number of changed rows. */
  run(sql: string, ...values: Value[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /**
   * A read outside of a transaction.
   * @throws DamagedRowError for a row that the reader must settle, BackendUnavailableError for the rest
   */
  read<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw error instanceof DamagedRowError ? error : toUnavailable(error, this.file);
    }
  }

  /** Changes when another connection has written. */
  get dataVersion(): number {
    return this.get<{ data_version: number }>("PRAGMA data_version")?.data_version ?? 0;
  }

  close(): void {
    try {
      // So that the file is whole by itself, also when another connection is still open and idle.
      if (this.file !== ":memory:") this.all("PRAGMA wal_checkpoint(TRUNCATE)");
    } catch {
      // Others still use the log, or the disk is in trouble: it is read at the next start.
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
    this.#checkOwner();
    if (file !== ":memory:") this.#connection.exec("PRAGMA journal_mode = WAL");
    this.#connection.exec(`PRAGMA synchronous = ${synchronous.toUpperCase()}`);
    if (this.#pragma("user_version") < MIGRATIONS.length) {
      this.#connection.exec("BEGIN IMMEDIATE");
      try {
        // Another process may have migrated while this one waited for the lock.
        for (const step of MIGRATIONS.slice(this.#pragma("user_version"))) this.#connection.exec(step);
        this.#connection.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${MIGRATIONS.length}; COMMIT`);
      } catch (error) {
        this.#connection.exec("ROLLBACK");
        throw error;
      }
    }
  }

  #checkOwner(): void {
    // One snapshot: another process may be making the file at this moment.
    this.#connection.exec("BEGIN");
    const owner = this.#pragma("application_id");
    const version = this.#pragma("user_version");
    const tables = this.get<{ count: number }>("SELECT count(*) AS count FROM sqlite_schema")?.count ?? 0;
    this.#connection.exec("COMMIT");
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
    const row = this.#connection.prepare(`PRAGMA ${name}`).get() as Record<string, number> | undefined;
    return row?.[name] ?? 0;
  }
}

/** The file holds what tasks were given: SQLite alone would make it for everybody to read. Its log gets the same mode. */
function makePrivate(file: string): void {
  if (file === ":memory:") return;
  try {
    // Never opened when it exists: closing it would drop the locks that other connections of this process hold on it.
    closeSync(openSync(file, "wx", 0o600));
  } catch {
    // It exists, or SQLite says why it cannot be made.
  }
}

/** The driver refuses to read an integer beyond 2^53. */
function readable(error: unknown): unknown {
  const { code } = error as { code?: unknown };
  return code === "ERR_OUT_OF_RANGE" ? new DamagedRowError("It holds a number beyond 2^53.") : error;
}
