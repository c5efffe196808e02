import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { benchBullmq } from "./bullmq.ts";
import { benchHatchet } from "./hatchet.ts";
import { round, type Bench, type Row, type Table } from "./measure.ts";
import { benchSqlite } from "./sqlite.ts";
import { benchTemporal } from "./temporal.ts";

const { values } = parseArgs({
  options: {
    backend: { type: "string", default: "sqlite" },
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    synchronous: { type: "string", default: "full" },
  },
});

const benches: Readonly<Record<string, Bench>> = {
  sqlite: benchSqlite,
  bullmq: benchBullmq,
  temporal: benchTemporal,
  hatchet: benchHatchet,
};
const bench = benches[values.backend];
if (!bench) throw new Error(`--backend ${values.backend} has no bench; there are ${Object.keys(benches).join(", ")}.`);

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

const tables = await bench(values);
if (values.json) console.log(JSON.stringify({ node: process.version, cpu: cpus()[0]?.model, cores: cpus().length, tables }, null, 2));
else for (const table of tables) print(table);
