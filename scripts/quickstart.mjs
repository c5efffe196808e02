// Installs, builds, and runs the main example on the engine that TASK_BACKEND_TYPE names; starts that engine if necessary.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { root, setup } from "./setup.mjs";
import { withEngines } from "./with-engines.mjs";

/** The engine that a backend needs when no URL is given. */
const NEEDS = { bullmq: "redis", temporal: "temporal", hatchet: "hatchet" };

await setup();
const needed = process.env.TASK_BACKEND_URL ? undefined : NEEDS[process.env.TASK_BACKEND_TYPE];
process.exitCode = await withEngines(needed ? [needed] : [], (env, missing) => {
  for (const [name, reason] of Object.entries(missing)) {
    console.error(`${name} cannot be had: ${reason}`);
    return 1;
  }
  const { status } = spawnSync(process.execPath, ["dist/main.js"], {
    cwd: join(root, "examples/document-pipeline"),
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  return status ?? 1;
});
