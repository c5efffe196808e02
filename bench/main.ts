import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { benchBullmq } from "./bullmq.ts";
import { measureGrowth, type Grown } from "./growth.ts";
import { benchHatchet } from "./hatchet.ts";
import { round, type Bench, type Row, type Table } from "./measure.ts";
import { places } from "./places.ts";
import { benchSqlite } from "./sqlite.ts";
import { benchTemporal } from "./temporal.ts";

/** The content of a file in `bench/results`, from which docs/performance.md is made. */
export interface Result {
  readonly date: string;
  readonly node: string;
  readonly cpu: string;
  readonly cores: number;
  readonly tables: readonly Table[];
  /** The lines of the charts, by name. */
  readonly growth: Readonly<Record<string, Grown>>;
}

const { values } = parseArgs({
  options: {
    backend: { type: "string", default: "sqlite" },
    part: { type: "string", multiple: true, default: ["raw", "growth"] },
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    synchronous: { type: "string" },
    /** Writes the result to `bench/results`. */
    keep: { type: "boolean", default: false },
  },
});

const benches: Readonly<Record<string, { readonly bench: Bench; readonly lines: readonly string[] }>> = {
  sqlite: { bench: benchSqlite, lines: ["SQLite"] },
  bullmq: { bench: benchBullmq, lines: ["BullMQ on Redis", "BullMQ on PostgreSQL"] },
  temporal: { bench: benchTemporal, lines: ["Temporal"] },
  hatchet: { bench: benchHatchet, lines: ["Hatchet"] },
};
const chosen = benches[values.backend];
if (!chosen) throw new Error(`--backend ${values.backend} has no bench; there are ${Object.keys(benches).join(", ")}.`);
const unknown = values.part.find((part) => part !== "raw" && part !== "growth");
if (unknown !== undefined) throw new Error(`--part ${unknown} is neither "raw" nor "growth".`);

function verdict({ goal }: Row): string {
  if (!goal) return "";
  const { text, reached } = goal;
  return `${text}: ${reached >= 1 ? "reached" : `${Math.round(reached * 100)} % of it`}`;
}

function print({ title, columns, rows }: Table): void {
  console.log(`${title}, Node ${process.version}, ${cpus().length} cores`);
  console.table(
    rows.map((row) => ({
      what: row.name,
      unit: row.unit,
      ours: round(row.ours),
      [columns.bare]: row.bare === undefined ? "" : round(row.bare),
      ...(columns.peer !== undefined && { [columns.peer]: row.peer === undefined ? "" : round(row.peer) }),
      goal: verdict(row),
    })),
  );
}

function printGrowth(name: string, { server, lines }: Grown): void {
  console.log(`${name} (${server}), how it grows`);
  console.table(
    Object.fromEntries(lines.map(({ chart, points }) => [chart, Object.fromEntries(points.map(({ at, value }) => [at, round(value)]))])),
  );
}

const tables = values.part.includes("raw") ? await chosen.bench(values) : [];
const growth: Record<string, Grown> = {};
for (const name of values.part.includes("growth") ? chosen.lines : [])
  growth[name] = await measureGrowth((places[name] as () => Record<string, string>)(), values.quick);

const [first] = cpus();
const date = new Date().toISOString().slice(0, 10);
const result: Result = { date, node: process.version, cpu: first?.model ?? "", cores: cpus().length, tables, growth };
if (values.keep) {
  const folder = join(dirname(fileURLToPath(import.meta.url)), "results");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${values.backend}.json`), `${JSON.stringify(result, null, 2)}\n`);
}
if (values.json) console.log(JSON.stringify(result, null, 2));
else {
  for (const table of tables) print(table);
  for (const [name, grown] of Object.entries(growth)) printGrowth(name, grown);
}
