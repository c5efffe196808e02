// npm run bench                      all backends, one after the other, then docs/performance.md with its charts
//   -- --backend sqlite|bullmq|temporal|hatchet [--part raw|growth] [--json] [--quick] [--synchronous full|normal]
//   -- --page                        only the page, from stored results
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { root, setup } from "./setup.mjs";
import { withEngines } from "./with-engines.mjs";

/** The engines that the bench of a backend needs. */
const NEEDS = { sqlite: [], bullmq: ["redis", "postgres"], temporal: ["temporal"], hatchet: ["hatchet"] };

const given = process.argv.slice(2);
if (given.includes("--page")) {
  peers();
  await load("bench/page.ts");
} else if (given.includes("--backend")) {
  await setup();
  peers();
  const backend = given[given.indexOf("--backend") + 1];
  await withEngines(NEEDS[backend] ?? [], async (env, missing) => {
    for (const [name, reason] of Object.entries(missing)) throw new Error(`${name}: ${reason}`);
    Object.assign(process.env, env);
    await load("bench/main.ts");
  });
} else {
  // The backends run one after the other, so that each has the machine for itself.
  for (const backend of Object.keys(NEEDS)) again("--backend", backend, "--keep", ...given);
  again("--page");
}
// The raw SDK of Hatchet keeps its stream of results open, so the process must exit.
process.exit();

async function load(file) {
  const { createJiti } = await import("jiti");
  await createJiti(import.meta.url).import(pathToFileURL(join(root, file)).href);
}

function again(...args) {
  const { status } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), ...args], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

/** Installs the peers that the bench compares with, and the library for charts. */
function peers() {
  const folder = join(root, "bench/peers");
  if (existsSync(join(folder, "node_modules/echarts"))) return;
  console.error("Installing what the bench compares with (may compile for a minute)");
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: folder,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) console.error("They could not be installed; the bench goes on without them.");
}
