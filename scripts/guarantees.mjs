// Makes docs/guarantees.md from the reports of the conformance suite in .reports, which npm test leaves there.
//   npm run guarantees            writes the page
//   npm run guarantees -- --check  checks that the page agrees with the reports
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { format, resolveConfig } from "prettier";
import { root } from "./setup.mjs";

const PAGE = join(root, "docs/guarantees.md");
const REPORTS = join(root, ".reports");
/** The engines in the order of the columns. */
const ENGINES = ["sqlite", "bullmq-redis", "bullmq-postgres", "temporal", "hatchet"];

/** Compares the page with the reports. Returns a problem with its remedy when they differ, else a note for people. */
export async function checkGuarantees() {
  const { reports, missing } = read();
  if (missing.length > 0) return { note: `not compared: ${missing.join(", ")}; npm test writes the reports` };
  const wanted = await page(reports);
  const actual = existsSync(PAGE) ? readFileSync(PAGE, "utf8") : "";
  if (wanted === actual) return { note: "docs/guarantees.md is what the reports say" };
  const [there, reported] = [actual, wanted].map((text) => text.split("\n"));
  const first = reported.findIndex((line, index) => line !== there[index]);
  return {
    problem: `docs/guarantees.md is not what the reports say, from line ${first + 1} on; npm run guarantees writes it anew.\nthere:   ${there[first] ?? ""}\nreports: ${reported[first] ?? ""}`,
  };
}

function read() {
  const reports = [];
  const missing = [];
  for (const engine of ENGINES) {
    const file = join(REPORTS, `${engine}.json`);
    if (!existsSync(file)) {
      missing.push(`no report of ${engine}`);
      continue;
    }
    const report = JSON.parse(readFileSync(file, "utf8"));
    if (report.results.length < report.cases) missing.push(`the report of ${engine} has ${report.results.length} of ${report.cases} cases`);
    else reports.push(report);
  }
  if (new Set(reports.map(({ results }) => results.map(({ title }) => title).join())).size > 1)
    missing.push("the reports are of different suites");
  return { reports, missing };
}

async function page(reports) {
  const row = (first, cell) => `| ${first} | ${reports.map(cell).join(" | ")} |`;
  const head = (title) => [row(title, (report) => report.name), row("---", () => "---")];
  const count = (report, outcome) => report.results.filter((result) => result.outcome === outcome).length;
  const notes = [];
  const note = (text) => {
    if (!notes.includes(text)) notes.push(text);
    return `${notes.indexOf(text) + 1}`;
  };
  const outcome = ({ outcome: how, reason }) =>
    how === "passed" ? "✓" : how === "failed" ? "**failed**" : `skipped <sup>${note(reason)}</sup>`;
  const limit = (value) => (value === undefined ? "none" : value);
  const lines = [
    "<!-- Written by npm run guarantees from the reports of npm test. Do not edit. -->",
    "",
    "# Guarantees",
    "",
    "What the conformance suite saw on real servers: every case, on every engine. `npm test` runs it and leaves its reports in",
    "`.reports`; this page is made of them, and `npm test` and `npm run check` fail when it says anything else.",
    "",
    ...head("Observed on"),
    row("server", (report) => server(report)),
    row("client", (report) => report.client || "built in"),
    row("cases passed", (report) => `${count(report, "passed")} of ${report.cases}`),
    row("failed", (report) => count(report, "failed")),
    row("skipped, with a reason", (report) => count(report, "skipped")),
    "",
    "## Features",
    "",
    "`native`: the engine's own. `emulated`: built on what the engine has, with the same observable result. `approximate`: differs",
    "in a declared way. `unsupported`: refused with `UnsupportedCapabilityError` before any I/O. A level stands here when the cases",
    "that use the feature, or see it refused, have passed on that engine.",
    "",
    ...head("Feature"),
    ...Object.keys(reports[0].features).map((feature) =>
      row(`\`${feature}\``, ({ features }) => {
        const { declared, observed } = features[feature];
        return observed === "as declared" ? declared : `${declared}, **${observed}**`;
      }),
    ),
    "",
    "## Limits",
    "",
    "With the suite's settings where an engine lets them be set (a short lease or lock, so that lost workers are noticed soon).",
    "",
    ...head("Limit"),
    row("a payload, bytes", ({ limits }) => limits.maxPayloadBytes),
    row("a workflow's records, bytes", ({ limits }) => limit(limits.maxJournalBytes)),
    row("priorities told apart", ({ limits }) => limits.priorityLevels),
    row("settled runs are kept, hours", ({ limits }) => Math.round(limits.retentionMs / 3_600_000)),
    row("a lost worker's runs go on within, ms", ({ limits }) => limits.recoveryMs),
    row("delays, retries and sleeps come at most so late, ms", ({ limits }) => limits.timerLatenessMs),
    "",
    "## Cases",
    "",
    "The rules are those of [the contract](contract.md).",
    "",
    ...head("Case"),
    ...reports[0].results.map(({ title }) =>
      row(title.replaceAll("|", "\\|"), (report) => outcome(report.results.find((result) => result.title === title))),
    ),
    "",
    ...notes.flatMap((text, index) => [`<sup>${index + 1}</sup> ${text}`, ""]),
  ];
  return format(lines.join("\n"), { ...(await resolveConfig(PAGE)), filepath: PAGE });
}

/** The server's version in the page, without the patch level of servers that a distribution installs. */
function server({ engine, server: version }) {
  return engine === "bullmq"
    ? version.replace(/ on (redis|valkey) (\d+\.\d+).*/i, " on $1 $2").replace(/ on (postgresql) (\d+).*/i, " on $1 $2")
    : version;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  if (process.argv.includes("--check")) {
    const { problem, note } = await checkGuarantees();
    console.log(problem ?? note);
    process.exitCode = problem ? 1 : 0;
  } else {
    const { reports, missing } = read();
    if (missing.length > 0) {
      console.error(`All engines must have run: ${missing.join("; ")}. Run npm test.`);
      process.exitCode = 1;
    } else {
      writeFileSync(PAGE, await page(reports));
      console.log("docs/guarantees.md is written.");
    }
  }
}
