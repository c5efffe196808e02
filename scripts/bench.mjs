// npm run bench -- --backend sqlite [--json] [--synchronous normal] [--quick]
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root, setup } from "./setup.mjs";

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
const { createJiti } = await import("jiti");
await createJiti(import.meta.url).import(pathToFileURL(join(root, "bench/main.ts")).href);
