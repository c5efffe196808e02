import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The variables that lead a process to an engine, in its own space there. */
export type Place = Readonly<Record<string, string>>;

const typeOf = (name: string): Place => ({ TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve(`@task-backend/${name}`) });
const suffix = (): string => randomBytes(3).toString("hex");

/** The engines by the names of the charts. `npm run bench` sets the variables. */
export const places: Readonly<Record<string, () => Place>> = {
  SQLite: () => ({
    ...typeOf("sqlite"),
    TASK_BACKEND_URL: `sqlite:${join(mkdtempSync(join(tmpdir(), "task-backend-bench-")), "bench.db")}`,
  }),
  "BullMQ on Redis": () => ({ ...typeOf("bullmq"), TASK_BACKEND_URL: withQuery("REDIS_URL", "prefix", `bench-${suffix()}`) }),
  "BullMQ on PostgreSQL": () => ({ ...typeOf("bullmq"), TASK_BACKEND_URL: withQuery("POSTGRES_URL", "schema", `bench_${suffix()}`) }),
  Temporal: () => ({ ...typeOf("temporal"), TASK_BACKEND_URL: `temporal://${variable("TEMPORAL_ADDRESS")}/default` }),
  Hatchet: () => typeOf("hatchet"),
};

function withQuery(name: string, key: string, value: string): string {
  const url = new URL(variable(name));
  url.searchParams.set(key, value);
  return url.href;
}

function variable(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`The bench needs ${name}; npm run bench starts the server and sets it.`);
  return value;
}
