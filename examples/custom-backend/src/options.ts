import { ConfigurationError, parseDuration, type Duration } from "@task-backend/core/adapter";

export interface PostgresQueueOptions {
  /** The URL: `postgres://user:password@host:5432/database`. */
  url: string;
  /** The schema of the tables, which is created if it is missing. Default `task_queue`. */
  schema?: string;
  /** The number of connections of this backend, besides the listening one. Default 4. */
  poolSize?: number;
  /** A worker counts as lost after this long without a heartbeat. Default 30 s. */
  lease?: Duration;
  /** How long settled runs are kept. Default 7 d. */
  retention?: Duration;
}

export interface Settings {
  readonly url: string;
  readonly schema: string;
  readonly poolSize: number;
  readonly leaseMs: number;
  readonly retentionMs: number;
}

const NAMES = ["url", "schema", "poolSize", "lease", "retention"];
const EXAMPLE = "postgres://user:password@host:5432/database";

/**
 * Parses the options, which go before those in the query of the URL.
 * @throws ConfigurationError naming the option
 */
export function parseOptions(given: Partial<Record<keyof PostgresQueueOptions, unknown>>): Settings {
  const text = given.url;
  if (typeof text !== "string" || !/^postgres(ql)?:/.test(text) || !URL.canParse(text))
    throw new ConfigurationError(`The custom backend needs the URL of a database, such as ${EXAMPLE}; set TASK_BACKEND_URL.`);
  const url = new URL(text);
  const options: Record<string, unknown> = { ...Object.fromEntries(url.searchParams), ...given };
  url.search = "";
  const unknown = Object.keys(options).find((name) => !NAMES.includes(name));
  if (unknown !== undefined) throw new ConfigurationError(`"${unknown}" is no option of the custom backend; they are ${NAMES.join(", ")}.`);
  const { schema = "task_queue", poolSize = 4, lease = "30s", retention = "7d" } = options;
  if (typeof schema !== "string" || !/^[a-z_][a-z0-9_]{0,50}$/.test(schema))
    throw new ConfigurationError(`Option schema is ${JSON.stringify(schema)}; it takes a name of lower-case letters, digits and "_".`);
  if (!(Number.isInteger(Number(poolSize)) && Number(poolSize) > 0))
    throw new ConfigurationError(`Option poolSize is ${JSON.stringify(poolSize)}; it takes a whole number above 0.`);
  return {
    url: url.href,
    schema,
    poolSize: Number(poolSize),
    leaseMs: parseDuration(lease as Duration, "Option lease of the custom backend"),
    retentionMs: parseDuration(retention as Duration, "Option retention of the custom backend"),
  };
}
