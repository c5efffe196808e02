// Runs real workers on real servers under faults, and then an auditor.
//   npm run faults -- [--backend sqlite|bullmq|bullmq-redis|bullmq-postgres|temporal|hatchet|custom-backend] [--seed N] [--minutes M] [--json] [--keep]
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root, setup } from "./setup.mjs";

await setup();
const { createJiti } = await import("jiti");
await createJiti(import.meta.url).import(pathToFileURL(join(root, "faults/main.ts")).href);
