// Checks everything that needs no server: format, lint, types, type tests, unused code, packages, lock file. Reports failures at the end.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { checkGuarantees } from "./guarantees.mjs";
import { root, setup } from "./setup.mjs";

await setup();

const bin = (name) => join(root, "node_modules/.bin", name);
const packages = readdirSync(join(root, "packages")).map((name) => join(root, "packages", name));
const checks = [
  ["format", bin("prettier"), ["--check", "--log-level", "warn", "."]],
  ["lint", bin("oxlint"), ["--type-aware", "--quiet"]],
  ["types", bin("tsc"), ["--noEmit"]],
  ["type tests", bin("vitest"), ["run", "--project", "types", "--reporter=dot"]],
  ["unused code", bin("knip"), ["--no-progress"]],
  ...packages.map((cwd) => [`publint ${cwd.split("/").at(-1)}`, bin("publint"), ["--strict"], cwd]),
  ...packages.map((cwd) => [
    `types of ${cwd.split("/").at(-1)} as published`,
    bin("attw"),
    ["--profile", "esm-only", "--pack", "--quiet"],
    cwd,
  ]),
];

const failed = [];
for (const [name, command, args, cwd = root] of checks) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: "utf8" });
  console.log(`${status === 0 ? "ok    " : "FAILED"} ${String(name)}`);
  if (status === 0) continue;
  failed.push(name);
  console.log(`${stdout}${stderr}`);
}

const missing = incompleteInLockFile();
console.log(`${missing.length === 0 ? "ok    " : "FAILED"} lock file`);
if (missing.length > 0) {
  failed.push("lock file");
  console.log(`package-lock.json names optional packages without an entry, so npm ci fails elsewhere: ${missing.join(", ")}`);
}

const { problem, note } = await checkGuarantees();
console.log(`${problem ? "FAILED" : "ok    "} guarantees: ${problem ?? note}`);
if (problem) failed.push("guarantees");

if (failed.length > 0) {
  console.error(`\n${failed.length} failed: ${failed.join(", ")}`);
  process.exit(1);
}

/** Finds missing platform packages in the lock file: npm silently drops those that it cannot get when it writes the file. */
function incompleteInLockFile() {
  const { packages: entries } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const present = new Set(Object.keys(entries).map((path) => path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)));
  return [...new Set(Object.values(entries).flatMap((entry) => Object.keys(entry.optionalDependencies ?? {})))].filter(
    (name) => !present.has(name),
  );
}
