import { ConfigurationError, redactUrl } from "@task-backend/core/adapter";
import { PostgresConnection, SchemaMigrationRequiredError, SchemaVersionMismatchError } from "bullmq";
import type { PostgresTarget } from "../options.ts";
import { installFunctions, migrateBullmq } from "./migrations.ts";

/** Migrates nothing by itself: `prepare` does. */
export function openConnection({ connection, schema }: PostgresTarget): PostgresConnection {
  return new PostgresConnection(
    ("totalCount" in connection
      ? connection
      : { connectionTimeoutMillis: 5_000, keepAlive: true, ...connection, schema, migrate: false }) as ConstructorParameters<
      typeof PostgresConnection
    >[0],
  );
}

/**
 * Brings the schema up to date where it is behind and that is allowed. Answers the server's version, and the schema as it names it.
 * @throws ConfigurationError when the schema is of another version and stays so, or a pool does not see it
 */
export async function prepare(
  connection: PostgresConnection,
  target: PostgresTarget,
  signal: AbortSignal,
): Promise<{ version: string; schema: string }> {
  const { pool } = connection;
  const ready = migrateBullmq(pool, target, signal).then(() => connection.waitUntilReady());
  await ready.catch((error: unknown) => {
    if (!(error instanceof SchemaMigrationRequiredError || error instanceof SchemaVersionMismatchError)) throw error;
    throw new ConfigurationError(`${error.message} Or connect once with migrate: true, which the bullmq backend does by default.`, {
      cause: error,
    });
  });
  const { rows } = await pool.query(
    "SELECT to_regclass('job') IS NOT NULL AS present, current_setting('server_version') AS version, current_schema() AS schema",
  );
  if (!rows[0].present) {
    throw new ConfigurationError(
      `The pool given to the bullmq backend does not see BullMQ's tables; make it with options "-c search_path=${target.schema}".`,
    );
  }
  await installFunctions(pool, target, signal);
  return { version: String(rows[0].version), schema: String(rows[0].schema) };
}

/** Host, port, database and schema, without secrets. */
export function whereOf({ connection, schema }: PostgresTarget): string {
  if ("connectionString" in connection && connection.connectionString) {
    return `${redactUrl(connection.connectionString).replace(/^\w+:\/*/, "")}, schema ${schema}`;
  }
  const {
    host = "127.0.0.1",
    port = 5432,
    database = "",
  } = ("options" in connection && "totalCount" in connection ? connection.options : connection) as {
    host?: string;
    port?: number;
    database?: string;
  };
  return `${host}:${port}/${database}, schema ${schema}`;
}
