// npm run bench -- --backend sqlite|bullmq|temporal|hatchet [--json] [--quick] [--synchronous normal]
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root, setup } from "./setup.mjs";
import { withEngines } from "./with-engines.mjs";

/** The engines that the bench of a backend needs. */
const NEEDS = { bullmq: ["redis", "postgres"], temporal: ["temporal"], hatchet: ["hatchet"] };

await setup();
const peers = join(root, "bench/peers");
if (!existsSync(join(peers, "node_modules"))) {
  console.error("Installing what the bench compares with (may compile for a minute)");
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: peers,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) console.error("They could not be installed; the bench goes on without them.");
}
const backend = process.argv[process.argv.indexOf("--backend") + 1] ?? "sqlite";
await withEngines(NEEDS[backend] ?? [], async (env, missing) => {
  for (const [name, reason] of Object.entries(missing)) throw new Error(`${name}: ${reason}`);
  Object.assign(process.env, env);
  const { createJiti } = await import("jiti");
  await createJiti(import.meta.url).import(pathToFileURL(join(root, "bench/main.ts")).href);
});
// The raw SDK of Hatchet keeps its stream of results open for ever.
process.exit();
