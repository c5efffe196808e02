import { setTimeout as pause } from "node:timers/promises";
import { ConfigurationError } from "@task-backend/core/adapter";
import {
  assertSchemaCompatibility,
  LATEST_SCHEMA_VERSION,
  runMigrations,
  SchemaMigrationRequiredError,
  type PostgresConnection,
} from "bullmq";
import type { PostgresTarget } from "../options.ts";
import { FUNCTIONS_VERSION, TABLES_AND_FUNCTIONS } from "./functions.ts";

/** An arbitrary number that nobody else uses; together with the schema's name it identifies the lock. */
const LOCK = 1_952_539_499;
const LOOK_AGAIN_MS = 50;

type Pool = PostgresConnection["pool"];
type Client = Awaited<ReturnType<Pool["connect"]>>;

/**
 * Creates or updates BullMQ's tables, if that is allowed. It checks them first: BullMQ's migrator takes a lock and alters its table
 * even when there is nothing to do.
 */
export async function migrateBullmq(pool: Pool, { schema, migrate, connection }: PostgresTarget, signal: AbortSignal): Promise<void> {
  if (!migrate || "totalCount" in connection) return;
  const isCurrent = (client: Client): Promise<boolean> =>
    assertSchemaCompatibility(client, schema).then(
      (version) => version >= LATEST_SCHEMA_VERSION,
      (error: unknown) => {
        if (error instanceof SchemaMigrationRequiredError) return false;
        throw error;
      },
    );
  await bringUpToDate(pool, schema, signal, isCurrent, (client) => runMigrations(client, schema));
}

/**
 * Creates or updates our tables and functions.
 * @throws ConfigurationError when that is necessary and not allowed
 */
export async function installFunctions(pool: Pool, { schema, migrate }: PostgresTarget, signal: AbortSignal): Promise<void> {
  const isCurrent = async (client: Client): Promise<boolean> => {
    if ((await installedVersion(client)) === FUNCTIONS_VERSION) return true;
    if (migrate) return false;
    throw new ConfigurationError(
      `The schema "${schema}" lacks the tables of this version of @task-backend/bullmq; connect once with migrate: true.`,
    );
  };
  // This is one statement, so it is one transaction.
  await bringUpToDate(pool, schema, signal, isCurrent, (client) => client.query(TABLES_AND_FUNCTIONS));
}

async function installedVersion(client: Client): Promise<number> {
  const { rows } = await client.query("SELECT to_regprocedure('task_backend_version()') IS NOT NULL AS present");
  return rows[0].present ? Number((await client.query("SELECT task_backend_version() AS version")).rows[0].version) : 0;
}

/** One of several starting processes installs, and the others check again: if they queued for the lock, each would install once more. */
async function bringUpToDate(
  pool: Pool,
  schema: string,
  signal: AbortSignal,
  isCurrent: (client: Client) => Promise<boolean>,
  install: (client: Client) => Promise<unknown>,
): Promise<void> {
  const client = await pool.connect();
  let mine = false;
  try {
    while (!mine && !(await isCurrent(client))) {
      const { rows } = await client.query("SELECT pg_try_advisory_lock($1, hashtext($2)) AS mine", [LOCK, schema]);
      mine = rows[0].mine;
      if (mine) await install(client);
      else await pause(LOOK_AGAIN_MS, undefined, { signal });
    }
  } finally {
    // Destroying the session releases the lock.
    client.release(mine);
  }
}
