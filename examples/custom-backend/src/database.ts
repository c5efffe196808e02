import { setTimeout as pause } from "node:timers/promises";
import { BackendUnavailableError, TaskBackendError, redactUrl } from "@task-backend/core/adapter";
import pg from "pg";
import type { Settings } from "./options.ts";
import { ddl } from "./schema.ts";

const LISTENS_AGAIN_MS = 200;
const TRIES = 10;

/** Runs a statement; `Row` is the type of its rows. */
export type Sql = <Row extends object = Record<string, unknown>>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** `work`: there may be a run to claim. Undefined: any news may have been missed, because the connection was lost. */
export type News = { readonly what: "work" | "settled" | "cancel"; readonly id: string } | undefined;

/** A pool for statements, and a connection that listens. */
export class Database {
  readonly where: string;
  readonly #settings: Settings;
  readonly #pool: pg.Pool;
  readonly #listeners = new Set<(news: News) => void>();
  #listening: pg.Client | undefined;
  #closed = false;

  constructor(settings: Settings) {
    this.where = redactUrl(settings.url);
    this.#settings = settings;
    this.#pool = new pg.Pool({ ...this.#connection(), max: settings.poolSize });
    // Without this handler an idle connection that breaks would end the process; the next statement takes another connection.
    this.#pool.on("error", () => {});
    this.#pool.on("connect", (client) => void client.on("error", () => {}));
  }

  /** Connects and creates the tables. Returns the server's version. */
  async open(): Promise<string> {
    const { schema } = this.#settings;
    const version = await this.transaction(async (sql) => {
      // The lock keeps two processes from creating the tables at the same time.
      await sql("SELECT pg_advisory_xact_lock(hashtext($1))", [schema]);
      const [found] = await sql<{ made: boolean }>("SELECT to_regclass($1) IS NOT NULL AS made", [`${schema}.signal_ids`]);
      if (!found?.made) await sql(ddl(schema));
      const [server] = await sql<{ server_version: string }>("SHOW server_version");
      return server?.server_version ?? "";
    });
    await this.#listen();
    return version;
  }

  sql: Sql = async (text, values = []) => {
    try {
      return (await this.#pool.query(text, values as unknown[])).rows as never;
    } catch (error) {
      throw this.#toError(error);
    }
  };

  /** Runs a statement on the listening connection, so that it does not wait for the pool. */
  urgent: Sql = async (text, values = []) => {
    if (!this.#listening) return this.sql(text, values);
    try {
      return (await this.#listening.query(text, values as unknown[])).rows as never;
    } catch (error) {
      throw this.#toError(error);
    }
  };

  /** Runs a transaction. Rows are locked from the parent down; if there is a deadlock all the same, the transaction is retried. */
  async transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      let client: pg.PoolClient | undefined;
      try {
        client = await this.#pool.connect();
        const taken = client;
        await taken.query("BEGIN");
        // Without values, the text may hold several statements.
        const result = await work(async (text, values) => (await taken.query(text, values as unknown[] | undefined)).rows as never);
        await taken.query("COMMIT");
        taken.release();
        return result;
      } catch (error) {
        // Without its connection the server rolls back.
        client?.release(true);
        const deadlock = error instanceof pg.DatabaseError && error.code === "40P01";
        if (!deadlock || tries === TRIES) throw this.#toError(error);
      }
    }
  }

  onNews(listener: (news: News) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled([this.#listening?.end(), this.#pool.end()]);
  }

  async #listen(): Promise<void> {
    const client = new pg.Client({ ...this.#connection(), keepAlive: true });
    client.on("error", () => {});
    client.on("notification", ({ payload = "" }) => {
      const [what, id = ""] = payload.split(" ");
      this.#tell({ what: what as "work", id });
    });
    try {
      await client.connect();
      await client.query(`LISTEN ${this.#settings.schema}`);
    } catch (error) {
      client.end().catch(() => {});
      throw this.#toError(error);
    }
    // The handler is added only now: if the connection ended earlier, the caller of this function retries.
    client.once("end", () => {
      this.#listening = undefined;
      void this.#listenAgain();
    });
    this.#listening = client;
  }

  async #listenAgain(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#listen();
        if (this.#closed) await this.#listening?.end();
        return this.#tell(undefined);
      } catch {
        await pause(LISTENS_AGAIN_MS, undefined, { ref: false });
      }
    }
  }

  #tell(news: News): void {
    for (const listener of this.#listeners) listener(news);
  }

  #connection(): pg.ClientConfig {
    const { url, schema } = this.#settings;
    return { connectionString: url, options: `-c search_path=${schema}`, connectionTimeoutMillis: 5_000, application_name: "task-backend" };
  }

  #toError(cause: unknown): Error {
    if (cause instanceof TaskBackendError) return cause;
    const { message } = cause as Error;
    // Other errors mean that the server was not reached. Classes 08, 53 and 57: no connection, no room, shutting down.
    const away = !(cause instanceof pg.DatabaseError) || /^(08|53|57)/.test(cause.code ?? "");
    return away ? new BackendUnavailableError(`PostgreSQL at ${this.where} cannot be reached: ${message}.`, { cause }) : cause;
  }
}
