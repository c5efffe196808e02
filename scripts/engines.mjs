// npm run engines -- up|down|status|env [redis|postgres …]
import { join } from "node:path";
import { root, setup } from "./setup.mjs";

await setup({ build: false });
const { createJiti } = await import("jiti");
await createJiti(import.meta.url).import(join(root, "engines/main.ts"));
