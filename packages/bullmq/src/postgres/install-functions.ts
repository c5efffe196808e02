import { ConfigurationError } from "@task-backend/core/adapter";
import type { PostgresTarget } from "../options.ts";
import { FUNCTIONS_VERSION, TABLES_AND_FUNCTIONS } from "./functions.ts";
import type { Row } from "./rows.ts";

/** Any number will do that nobody else takes. */
const INSTALL_LOCK = 7_461_736_500;

type Query = (text: string) => Promise<Row[]>;

/**
 * Creates our tables and functions, or brings them up to date.
 * @throws ConfigurationError when that must be done and is not allowed
 */
export async function installFunctions(query: Query, { schema, migrate }: PostgresTarget): Promise<void> {
  if ((await installedVersion(query)) === FUNCTIONS_VERSION) return;
  if (!migrate) {
    throw new ConfigurationError(
      `The schema "${schema}" lacks the tables of this version of @task-backend/bullmq; connect once with migrate: true.`,
    );
  }
  // One statement, so one transaction: the lock ends with it.
  await query(`SELECT pg_advisory_xact_lock(${INSTALL_LOCK}); ${TABLES_AND_FUNCTIONS}`);
}

async function installedVersion(query: Query): Promise<number> {
  const [row] = await query("SELECT to_regprocedure('task_backend_version()') IS NOT NULL AS present");
  return row?.["present"] ? Number((await query("SELECT task_backend_version() AS version"))[0]?.["version"]) : 0;
}
