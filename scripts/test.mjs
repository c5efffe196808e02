// Installs, builds and runs the tests. Ends with one line: N passed, N failed, N skipped.
//   npm test -- --backend sqlite   the conformance suite on one engine
//   npm test -- --rule 18          the cases of one rule
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root, setup } from "./setup.mjs";

const { values } = parseArgs({ options: { backend: { type: "string" }, rule: { type: "string" } } });

const engines = readdirSync(join(root, "test/conformance")).map((file) => file.replace(/\.test\.ts$/, ""));
if (values.backend !== undefined && !engines.includes(values.backend)) {
  console.error(`--backend ${values.backend} is unknown; the engines are ${engines.join(", ")}.`);
  process.exit(2);
}
if (values.rule !== undefined && !/^\d+$/.test(values.rule)) {
  console.error(`--rule ${values.rule} is not the number of a rule, such as 18.`);
  process.exit(2);
}

await setup();
const vitest = join(root, "node_modules/vitest/vitest.mjs");
const args = ["run", "--reporter=default", `--reporter=${join(root, "scripts/summary-reporter.mjs")}`];
if (values.backend !== undefined) args.push(`test/conformance/${values.backend}.test.ts`);
if (values.rule !== undefined) args.push("--testNamePattern", `rule ${values.rule}:`);
if (!existsSync(vitest)) throw new Error("vitest is not installed.");
const { status } = spawnSync(process.execPath, [vitest, ...args], {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, NODE_ENV: "test", FORCE_TTY: "" },
});
process.exit(status ?? 1);
