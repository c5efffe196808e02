// Installs, builds, and runs the main example on the engine that TASK_BACKEND_TYPE names.
import { join } from "node:path";
import { root, run, setup } from "./setup.mjs";

await setup();
run(process.execPath, ["dist/main.js"], { cwd: join(root, "examples/document-pipeline") });
