// Starts the engines that a command needs and does not find, and stops them afterwards.
import { join } from "node:path";
import { root } from "./setup.mjs";

/**
 * Calls back with the variables of the engines, and with the reasons for missing ones; then stops the engines that it started.
 * @param {readonly string[]} names
 * @param {(env: Record<string, string>, missing: Record<string, string>) => number | Promise<number>} work answers with an exit status
 */
export async function withEngines(names, work) {
  const { createJiti } = await import("jiti");
  const { engines, obtain, discard } = await createJiti(import.meta.url).import(join(root, "engines/index.ts"));
  const env = {};
  const missing = {};
  const started = [];
  const stopAll = () => Promise.all(started.splice(0).map((server) => discard(server)));
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => void stopAll().then(() => process.exit(130)));
  try {
    await Promise.all(
      names.map(async (name) => {
        try {
          const available = await obtain(engines[name], console.log);
          Object.assign(env, available.env);
          if (available.from === "started") started.push(available.server);
        } catch (error) {
          missing[name] = error.message;
        }
      }),
    );
    return await work(env, missing);
  } finally {
    await stopAll();
  }
}
