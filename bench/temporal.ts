import { randomBytes, randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createBackend, silentLogger } from "@task-backend/core";
import { temporal } from "@task-backend/temporal";
import { Client, Connection } from "@temporalio/client";
import { besideRaw, type Work } from "./beside-raw.ts";
import type { Bench } from "./measure.ts";
import { startProcess, startWorkerProcess, stopProcess } from "./processes.ts";
import { add, chainOfTen, increment } from "./tasks.ts";

/*
 * Compares our backend with the raw SDK on the same work and the same server, in turns: a standalone activity, and a workflow of
 * ten activities written by hand. Workers are separate processes.
 */

const here = dirname(fileURLToPath(import.meta.url));

export const benchTemporal: Bench = async ({ quick }) => {
  const address = process.env["TEMPORAL_ADDRESS"];
  if (!address) throw new Error("The bench of temporal needs TEMPORAL_ADDRESS; npm run bench sets it.");
  const backend = await createBackend(temporal({ address }), { log: silentLogger });
  backend.register(add, increment, chainOfTen);
  const client = new Client({ connection: await Connection.connect({ address }) });
  const require = createRequire(import.meta.url);
  const taskQueue = `raw-${randomBytes(4).toString("hex")}`;
  const jiti = join(dirname(require.resolve("jiti/package.json")), "lib/jiti-cli.mjs");
  const workers = [
    await startWorkerProcess({
      TASK_BACKEND_TYPE: require.resolve("@task-backend/temporal"),
      TASK_BACKEND_URL: `temporal://${address}/default`,
    }),
    await startProcess([jiti, join(here, "raw-temporal-worker.ts"), address, taskQueue], {}, "raw worker ready"),
  ];
  const task: Work = {
    ours: async (index) => (await backend.submit(add, { a: index, b: 1 })).output(),
    raw: async (index) =>
      client.activity.execute("add", {
        id: randomUUID(),
        taskQueue,
        args: [{ a: index, b: 1 }],
        startToCloseTimeout: "1m",
        heartbeatTimeout: "30s",
      }),
  };
  const chain: Work = {
    ours: async () => (await backend.submit(chainOfTen, 0)).output(),
    raw: async () => client.workflow.execute("rawChainOfTen", { workflowId: randomUUID(), taskQueue, args: [0] }),
  };
  try {
    return [await besideRaw("temporal", { task, chain, chainMayAdd: 0.15 }, quick)];
  } finally {
    for (const worker of workers) await stopProcess(worker);
    await backend.close();
    await client.connection.close();
  }
};
