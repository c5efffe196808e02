import { setTimeout as pause } from "node:timers/promises";
import Libsql from "libsql";
import { BackendUnavailableError } from "@task-backend/core/adapter";
import { isBusy, toUnavailable } from "./mapping.ts";
import type { SqliteSettings } from "./options.ts";
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts";
import { Writer } from "./writer.ts";

type Value = string | number | null;

/** How long SQLite itself waits for a lock, with the event loop standing still; after that we wait without blocking. */
const BLOCKING_WAIT_MS = 50;

/** One connection: statements prepared once per text, and writes that share transactions. */
export class Database {
  readonly file: string;
  readonly writer: Writer;
  readonly #connection: Libsql.Database;
  readonly #statements = new Map<string, Libsql.Statement>();

  /** @throws BackendUnavailableError when the file cannot be used */
  static async open(settings: SqliteSettings): Promise<Database> {
    const { file, lockTimeoutMs } = settings;
    const deadline = Date.now() + lockTimeoutMs;
    for (;;) {
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
    this.#connection = new Libsql(settings.file, { timeout: BLOCKING_WAIT_MS });
    try {
      this.#prepareFile(settings);
    } catch (error) {
      this.#connection.close();
      throw error;
    }
    this.writer = new Writer(this, settings.lockTimeoutMs);
  }

  get<Row>(sql: string, ...values: Value[]): Row | undefined {
    return this.#statement(sql).get(...values) as Row | undefined;
  }

  all<Row>(sql: string, ...values: Value[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  /** The number of changed rows. */
  run(sql: string, ...values: Value[]): number {
    return this.#statement(sql).run(...values).changes;
  }

  /** A read outside of a transaction, with SQLite's errors turned into ours. */
  read<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw toUnavailable(error, this.file);
    }
  }

  /** Changes when another connection has written. */
  get dataVersion(): number {
    return this.get<{ data_version: number }>("PRAGMA data_version")?.data_version ?? 0;
  }

  close(): void {
    try {
      // So that the file is whole by itself; the last connection alone does not see to it in this driver.
      if (this.file !== ":memory:") this.all("PRAGMA wal_checkpoint(TRUNCATE)");
    } catch {
      // Others still use the log, or the disk is in trouble: it is read at the next start.
    }
    this.#statements.clear();
    this.#connection.close();
  }

  #statement(sql: string): Libsql.Statement {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#connection.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #prepareFile({ file, synchronous }: SqliteSettings): void {
    this.#checkOwner();
    if (file !== ":memory:") this.#connection.pragma("journal_mode = WAL");
    this.#connection.pragma(`synchronous = ${synchronous.toUpperCase()}`);
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
