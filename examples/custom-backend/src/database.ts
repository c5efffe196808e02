import { setTimeout as pause } from "node:timers/promises";
import { BackendUnavailableError, TaskBackendError, redactUrl } from "@task-backend/core/adapter";
import pg from "pg";
import type { Settings } from "./options.ts";
import { ddl } from "./schema.ts";

const LISTENS_AGAIN_MS = 200;
const TRIES = 10;

/** Asks the database; with a row type for what it answers. */
export type Sql = <Row extends object = Record<string, unknown>>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** `work`: there may be something to claim. Undefined: anything may have happened, because the connection was away. */
export type News = { readonly what: "work" | "settled" | "cancel"; readonly id: string } | undefined;

/** A pool for questions, and a connection that listens. */
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
    // One that breaks while nothing is asked of it ends the process otherwise; the next question takes another.
    this.#pool.on("error", () => {});
    this.#pool.on("connect", (client) => void client.on("error", () => {}));
  }

  /** Answers with the version of the server. */
  async open(): Promise<string> {
    const { schema } = this.#settings;
    const version = await this.transaction(async (sql) => {
      // Two at once would both make them.
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

  /** What must not stand in line for the pool goes over the connection that listens. */
  urgent: Sql = async (text, values = []) => {
    if (!this.#listening) return this.sql(text, values);
    try {
      return (await this.#listening.query(text, values as unknown[])).rows as never;
    } catch (error) {
      throw this.#toError(error);
    }
  };

  /** All or nothing. Locks are taken from the parent down; where two transactions still wait for each other, one is tried again. */
  async transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      let client: pg.PoolClient | undefined;
      try {
        client = await this.#pool.connect();
        const taken = client;
        await taken.query("BEGIN");
        // Without values it may be several statements.
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
    // Not before: one that ends while it is being made is tried again by who makes it, and twice would be two from then on.
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
    // What is not of the server never came to it. Classes 08, 53 and 57: no connection, no room, going down.
    const away = !(cause instanceof pg.DatabaseError) || /^(08|53|57)/.test(cause.code ?? "");
    return away ? new BackendUnavailableError(`PostgreSQL at ${this.where} cannot be reached: ${message}.`, { cause }) : cause;
  }
}
