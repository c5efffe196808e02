import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { createBackend, silentLogger } from "@task-backend/core";
import { hatchet } from "@task-backend/hatchet";
import { besideRaw, type Work } from "./beside-raw.ts";
import type { Bench } from "./measure.ts";
import { startProcess, startWorkerProcess, stopProcess } from "./processes.ts";
import { add, chainOfTen, increment } from "./tasks.ts";

/*
 * Compares a task, and a durable task of ten child runs written by hand. Workers are separate processes.
 */

const here = dirname(fileURLToPath(import.meta.url));

export const benchHatchet: Bench = async ({ quick }) => {
  if (!process.env["HATCHET_CLIENT_TOKEN"]) throw new Error("The bench of hatchet needs HATCHET_CLIENT_TOKEN; npm run bench sets it.");
  const backend = await createBackend(hatchet(), { log: silentLogger });
  backend.register(add, increment, chainOfTen);
  const silent = (): void => {};
  const logger = () => ({ debug: silent, info: silent, green: silent, warn: silent, error: silent, util: silent });
  const client = HatchetClient.init({ logger, log_level: "OFF" });
  const require = createRequire(import.meta.url);
  const suffix = randomBytes(4).toString("hex");
  const jiti = join(dirname(require.resolve("jiti/package.json")), "lib/jiti-cli.mjs");
  const workers = [
    await startWorkerProcess({ TASK_BACKEND_TYPE: require.resolve("@task-backend/hatchet") }),
    await startProcess([jiti, join(here, "raw-hatchet-worker.ts"), suffix], {}, "raw worker ready"),
  ];
  const raw = async (name: string, input: Readonly<Record<string, number>>): Promise<unknown> =>
    (await client.runNoWait(`${name}-${suffix}`, input, {})).output;
  const task: Work = {
    ours: async (index) => (await backend.submit(add, { a: index, b: 1 })).output(),
    raw: (index) => raw("raw-add", { a: index, b: 1 }),
  };
  const chain: Work = {
    ours: async () => (await backend.submit(chainOfTen, 0)).output(),
    raw: () => raw("raw-chain", { n: 0 }),
  };
  try {
    return [await besideRaw("hatchet", { task, chain, chainMayAdd: 0.2 }, quick)];
  } finally {
    for (const worker of workers) await stopProcess(worker);
    await backend.close();
  }
};
