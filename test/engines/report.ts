import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { EngineUnderTest } from "@task-backend/conformance";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/**
 * The report of a run of the suite: `.reports/NAME.json`, with the versions of these packages. docs/guarantees.md is made from it.
 * A run that is not for that page names another folder in TASK_BACKEND_REPORTS.
 */
export function reportTo(name: string, ...packages: readonly string[]): Pick<EngineUnderTest, "report" | "client"> {
  const folder = process.env["TASK_BACKEND_REPORTS"] ?? join(root, ".reports");
  return { report: join(folder, `${name}.json`), client: packages.map((one) => `${one} ${versionOf(one)}`).join(", ") };
}

/** The version of a package, which may not export its package.json. */
function versionOf(name: string): string {
  const folder = (createRequire(import.meta.url).resolve.paths(name) ?? []).map((path) => join(path, name, "package.json"));
  for (const file of folder) {
    try {
      return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
    } catch {
      // The search goes on in the next folder up.
    }
  }
  throw new Error(`${name} is not installed.`);
}
