// Installs, builds, starts the engines and runs the tests. Ends with one line: N passed, N failed, N skipped.
//   npm test -- --backend bullmq          the conformance suite on one backend, on both stores of bullmq
//   npm test -- --backend bullmq-redis    on one store
//   npm test -- --rule 18                 the cases of one rule
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root, setup } from "./setup.mjs";
import { withEngines } from "./with-engines.mjs";

/** The engine that a file of test/conformance needs. Other files need no server. */
const NEEDS = {
  "bullmq-redis": "redis",
  "bullmq-postgres": "postgres",
  temporal: "temporal",
  hatchet: "hatchet",
  "custom-backend": "postgres",
};

const { values } = parseArgs({ options: { backend: { type: "string" }, rule: { type: "string" } } });

const all = readdirSync(join(root, "test/conformance")).map((file) => file.replace(/\.test\.ts$/, ""));
const chosen = all.filter((name) => values.backend === undefined || name === values.backend || name.startsWith(`${values.backend}-`));
if (chosen.length === 0) {
  console.error(`--backend ${values.backend} is unknown; they are ${all.join(", ")}, or what stands before a dash there.`);
  process.exit(2);
}
if (values.rule !== undefined && !/^\d+$/.test(values.rule)) {
  console.error(`--rule ${values.rule} is not the number of a rule, such as 18.`);
  process.exit(2);
}

await setup();
const engines = [...new Set(chosen.map((name) => NEEDS[name]).filter(Boolean))];
process.exitCode = await withEngines(engines, (env, missing) => {
  const reasons = Object.entries(missing);
  for (const [name, reason] of reasons) console.error(`${process.env.CI ? "failed" : "skipped"}: ${name} (${reason})`);
  // In CI every engine is required.
  if (reasons.length > 0 && process.env.CI) return 1;
  return vitest({ ...env, TASK_BACKEND_MISSING_ENGINES: JSON.stringify(missing) });
});

function vitest(env) {
  const args = ["run", "--reporter=default", `--reporter=${join(root, "scripts/summary-reporter.mjs")}`];
  if (values.backend !== undefined) args.push(...chosen.map((name) => `test/conformance/${name}.test.ts`));
  if (values.rule !== undefined) args.push("--testNamePattern", `rule ${values.rule}:`);
  const child = spawn(process.execPath, [join(root, "node_modules/vitest/vitest.mjs"), ...args], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, NODE_ENV: "test", FORCE_TTY: "", ...env },
  });
  return new Promise((resolve) => child.once("exit", (code) => resolve(code ?? 1)));
}
