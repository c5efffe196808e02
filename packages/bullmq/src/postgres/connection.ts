import { ConfigurationError, redactUrl } from "@task-backend/core/adapter";
import { PostgresConnection, SchemaMigrationRequiredError, SchemaVersionMismatchError } from "bullmq";
import type { PostgresTarget } from "../options.ts";
import { installFunctions, migrateBullmq } from "./migrations.ts";

/** Opens a connection without migrating the schema: `prepare` does that. */
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
 * Migrates an outdated schema, if that is allowed. Returns the server's version, and the schema's name on the server.
 * @throws ConfigurationError when the schema keeps another version, or the pool does not see it
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

/** The host, port, database and schema, without secrets. */
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
