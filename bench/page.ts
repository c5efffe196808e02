import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { format, resolveConfig } from "prettier";
import type { Growth } from "./growth.ts";
import type { Result } from "./main.ts";
import { round, type Row, type Table } from "./measure.ts";

/*
 * Writes the tables and charts of docs/performance.md from bench/results. People write the text around them.
 */

const here = dirname(fileURLToPath(import.meta.url));
const PAGE = join(here, "../docs/performance.md");
const CHARTS = join(here, "../docs/performance");

const AXES: Readonly<Record<Growth["chart"], { readonly x: string; readonly y: string }>> = {
  waiting: { x: "tasks that wait in the queue", y: "tasks/s" },
  steps: { x: "steps of the chain", y: "ms a step" },
  payload: { x: "bytes of input, and of output", y: "ms from submit to result" },
  workers: { x: "worker processes, each good for 200 tasks/s", y: "tasks/s" },
};

/** The part of echarts that is used here. It is installed with the peers. */
interface Echarts {
  init(element: null, theme: null, options: object): { setOption(option: object): void; renderToSVGString(): string; dispose(): void };
}

const RESULTS = join(here, "results");
const results = (existsSync(RESULTS) ? readdirSync(RESULTS) : []).map(
  (file) => JSON.parse(readFileSync(join(RESULTS, file), "utf8")) as Result,
);
const backends = results.flatMap(({ growth }) => Object.entries(growth));

function draw(chart: Growth["chart"], echarts: Echarts): string {
  const { x, y } = AXES[chart];
  const axis = { type: "log", nameLocation: "middle", minorSplitLine: { show: false } };
  const drawn = echarts.init(null, null, { renderer: "svg", ssr: true, width: 720, height: 400 });
  drawn.setOption({
    animation: false,
    backgroundColor: "#ffffff",
    grid: { left: 70, right: 30, top: 50, bottom: 60 },
    legend: { top: 10 },
    xAxis: { ...axis, name: x, nameGap: 32 },
    yAxis: { ...axis, name: y, nameGap: 50 },
    series: backends.flatMap(([name, { lines }]) =>
      lines
        .filter((one) => one.chart === chart)
        .map(({ points }) => ({ name, type: "line", data: points.map(({ at, value }) => [at, value]) })),
    ),
  });
  const svg = drawn.renderToSVGString();
  drawn.dispose();
  return svg;
}

function tableOf({ title, columns, rows }: Table): string {
  const figure = (value: number | undefined, unit: string): string =>
    value === undefined ? "" : `${round(value).toLocaleString("en")}${unit === "/s" ? "/s" : ` ${unit}`}`;
  const ratio = ({ ours, bare }: Row): string => (bare === undefined ? "" : (ours / bare).toFixed(2));
  const head = [title, "ours", columns.bare, "ratio", ...(columns.peer === undefined ? [] : [columns.peer])];
  const body = rows.map((row) => [
    row.name,
    figure(row.ours, row.unit),
    figure(row.bare, row.unit),
    ratio(row),
    ...(columns.peer === undefined ? [] : [figure(row.peer, row.unit)]),
  ]);
  return [head, head.map(() => "---"), ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function growthOf(chart: Growth["chart"]): string {
  const measured = backends.map(([name, { lines }]) => ({ name, points: lines.find((one) => one.chart === chart)?.points ?? [] }));
  const ats = [...new Set(measured.flatMap(({ points }) => points.map(({ at }) => at)))].sort((a, b) => a - b);
  const rows = measured.map(({ name, points }) => [
    name,
    ...ats.map((at) => {
      const value = points.find((point) => point.at === at)?.value;
      return value === undefined ? "" : round(value).toLocaleString("en");
    }),
  ]);
  const head = [AXES[chart].y, ...ats.map((at) => at.toLocaleString("en"))];
  return [
    `![${AXES[chart].y}, by ${AXES[chart].x}](performance/${chart}.svg)`,
    "",
    ...[head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`),
  ].join("\n");
}

const [newest] = results.toSorted((a, b) => b.date.localeCompare(a.date));
if (!newest) throw new Error("There is nothing in bench/results; npm run bench writes it.");
const servers = backends.map(([, { server }]) => server);
const parts = new Map<string, string>([
  ["machine", `${newest.cores} cores (${newest.cpu}), Node ${newest.node.slice(1)}, ${newest.date}; ${servers.join(", ")}.`],
  ...results.flatMap(({ tables }) => tables.map((table): [string, string] => [table.title, tableOf(table)])),
  ...(Object.keys(AXES) as Growth["chart"][]).map((chart): [string, string] => [chart, growthOf(chart)]),
]);

mkdirSync(CHARTS, { recursive: true });
const echarts = createRequire(join(here, "peers/package.json"))("echarts") as Echarts;
for (const chart of Object.keys(AXES) as Growth["chart"][]) writeFileSync(join(CHARTS, `${chart}.svg`), draw(chart, echarts));
const written = readFileSync(PAGE, "utf8").replaceAll(/<!-- bench: (.+?) -->[\s\S]*?<!-- \/bench -->/g, (there, name: string) => {
  const part = parts.get(name);
  return part === undefined ? there : `<!-- bench: ${name} -->\n\n${part}\n\n<!-- /bench -->`;
});
writeFileSync(PAGE, await format(written, { ...(await resolveConfig(PAGE)), filepath: PAGE }));
