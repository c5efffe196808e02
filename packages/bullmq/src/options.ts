import { ConfigurationError, optionMs, parseAdapterOptions, type Duration } from "@task-backend/core/adapter";
import type { QueueOptions, WorkerOptions } from "bullmq";
import type { Cluster, Redis, RedisOptions } from "ioredis";
import type { Pool, PoolConfig } from "pg";
import { z } from "zod";
import { POSTGRES_SCHEMES, REDIS_SCHEMES, splitUrl } from "./url.ts";

/** Options of `bullmq()`, of `options` in the configuration, and (plain values only) of the query of URLs. */
export interface BullmqOptions {
  /** `redis://`, `rediss://`, `postgres://` or `postgresql://`. Default: `TASK_BACKEND_URL`, `REDIS_URL`, then Redis on this machine. */
  url?: string;
  /**
   * Given instead of a URL: a ready client of ioredis (also a Cluster), its options (TLS, Sentinel), a pool of node-postgres or
   * its configuration. A ready one is never closed here; a pool must have the schema as its `search_path`.
   */
  connection?: Redis | Cluster | RedisOptions | Pool | PoolConfig;
  /** The prefix of every Redis key. Give a hash tag, such as `{bull}`, on a Cluster. Default `bull`. */
  prefix?: string;
  /** PostgreSQL: the schema of BullMQ's tables and ours. Default `bullmq`. */
  schema?: string;
  /** PostgreSQL: create or migrate the tables when connecting. Default true. */
  migrate?: boolean;
  /** PostgreSQL: the number of connections of the pool. Default 10. */
  poolSize?: number;
  /** A job's lock is lost after this long without a renewal, and others claim the job. Default 30 s. */
  lock?: Duration;
  /** How often workers look for lost jobs. Default half of `lock`. */
  stalledInterval?: Duration;
  /** How long settled runs are kept. Default 7 d. */
  retention?: Duration;
  /** BullMQ's own options for each worker and queue, passed through: `limiter`, `metrics`, `telemetry`, `streams`. */
  worker?: Pick<WorkerOptions, "limiter" | "metrics">;
  queue?: Pick<QueueOptions, "streams" | "telemetry">;
}

/** `BullmqOptions` with every default filled in. */
export interface BullmqSettings {
  readonly target: RedisTarget | PostgresTarget;
  readonly lockMs: number;
  readonly stalledIntervalMs: number;
  readonly retentionMs: number;
  readonly worker: NonNullable<BullmqOptions["worker"]>;
  readonly queue: NonNullable<BullmqOptions["queue"]>;
}

export interface RedisTarget {
  readonly store: "redis";
  readonly prefix: string;
  readonly connection: string | Redis | Cluster | RedisOptions;
}

export interface PostgresTarget {
  readonly store: "postgres";
  readonly schema: string;
  readonly migrate: boolean;
  readonly connection: Pool | PoolConfig;
}

const DEFAULT_URL = "redis://127.0.0.1:6379";
const duration = z.union([z.number(), z.string()]).optional();

const schema = z.strictObject({
  url: z.string().min(1).optional(),
  connection: z.custom<object>((value) => typeof value === "object" && value !== null, "must be a client or its options").optional(),
  prefix: z.string().min(1).optional(),
  // As BullMQ takes them.
  schema: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_$]{0,62}$/, "it is no plain name of a schema: give up to 63 letters, digits and underscores")
    .optional(),
  migrate: z.union([z.boolean(), z.enum(["true", "false"]).transform((text) => text === "true")]).optional(),
  poolSize: z.coerce.number().int().min(2).optional(),
  lock: duration,
  stalledInterval: duration,
  retention: duration,
  worker: z.custom<object>((value) => typeof value === "object" && value !== null, "must be options of a BullMQ worker").optional(),
  queue: z.custom<object>((value) => typeof value === "object" && value !== null, "must be options of a BullMQ queue").optional(),
});

/** The options that the query of a URL may have, besides those of the driver. */
const IN_URL = ["prefix", "schema", "migrate", "poolSize", "lock", "stalledInterval", "retention"] as const;

/** @throws ConfigurationError naming the option, InvalidArgumentError for a bad duration */
export function parseOptions(options: unknown): BullmqSettings {
  const given = parseAdapterOptions("bullmq", schema, options);
  if (given.url !== undefined && given.connection !== undefined) {
    throw new ConfigurationError("Options of the bullmq backend: give url or connection, not both.");
  }
  const { url, inUrl } = readUrl(given.url ?? DEFAULT_URL);
  const all = { ...given, ...inUrl };
  const ms = (value: number | string, name: string): number => optionMs("bullmq", name, value);
  const lockMs = Math.max(ms(all.lock ?? "30s", "lock"), 200);
  return {
    target: targetOf(all, url),
    lockMs,
    stalledIntervalMs: all.stalledInterval === undefined ? lockMs / 2 : Math.max(ms(all.stalledInterval, "stalledInterval"), 50),
    retentionMs: ms(all.retention ?? "7d", "retention"),
    worker: all.worker ?? {},
    queue: all.queue ?? {},
  };
}

function readUrl(text: string): { url: URL; inUrl: Partial<z.infer<typeof schema>> } {
  const { url, query } = splitUrl(text, IN_URL);
  const checked = schema.safeParse(query);
  if (!checked.success) {
    const issue = checked.error.issues[0];
    throw new ConfigurationError(`The query of the bullmq URL: ${issue?.path.join(".")}: ${issue?.message}.`);
  }
  return { url, inUrl: Object.fromEntries(Object.entries(checked.data).filter(([name]) => name in query)) };
}

function targetOf(options: z.infer<typeof schema>, url: URL): RedisTarget | PostgresTarget {
  const { connection } = options;
  const scheme = url.protocol;
  const postgres = connection === undefined ? POSTGRES_SCHEMES.includes(scheme) : isPostgres(connection);
  if (!postgres) {
    if (connection === undefined && !REDIS_SCHEMES.includes(scheme)) {
      throw new ConfigurationError(
        `The URL of the bullmq backend starts with "${scheme}"; it takes redis:, rediss:, postgres: or postgresql:. Set TASK_BACKEND_TYPE to the engine of the URL, or the URL to one of these.`,
      );
    }
    refuse(options, ["schema", "migrate", "poolSize"], "PostgreSQL");
    return { store: "redis", prefix: options.prefix ?? "bull", connection: connection ?? url.href };
  }
  refuse(options, ["prefix"], "Redis");
  return {
    store: "postgres",
    schema: options.schema ?? "bullmq",
    migrate: options.migrate ?? true,
    connection: connection ?? { connectionString: url.href, max: options.poolSize ?? 10 },
  };
}

function refuse(options: object, names: readonly string[], store: string): void {
  const wrong = names.find((name) => (options as Record<string, unknown>)[name] !== undefined);
  if (wrong) throw new ConfigurationError(`Options of the bullmq backend: ${wrong} is for ${store} only; leave it out.`);
}

function isPostgres(connection: object): boolean {
  return "totalCount" in connection || "connectionString" in connection || "database" in connection;
}
