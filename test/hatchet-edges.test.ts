import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { createBackend, defineTask, defineWorkflow, silentLogger, type TaskBackend } from "@task-backend/core";
import { hatchet, type HatchetOptions } from "@task-backend/hatchet";
import { describe, expect, test } from "vitest";
import { TcpProxy } from "../engines/tcp-proxy.ts";
import { onEngine } from "./engines/required.ts";

/*
 * Ends and edge cases: the state after a failed start or a stop, bursts, and runs with damaged data.
 */

const newName = (name: string): string => `${name}-${randomBytes(5).toString("hex")}`;
const open = (options: HatchetOptions = {}): Promise<TaskBackend> => createBackend(hatchet(options), { log: silentLogger });

/** Hatchet behind a connection that can be cut. */
async function proxied(): Promise<{ options: HatchetOptions; cut(): Promise<unknown>; restore(): Promise<unknown> }> {
  const { HATCHET_CLIENT_HOST_PORT: hostPort = "", HATCHET_CLIENT_API_URL: apiUrl = "" } = process.env;
  const to = (address: string): { host: string; port: number } => {
    const [host = "", port = ""] = address.split(":");
    return { host, port: Number(port) };
  };
  const [grpc, api] = await Promise.all([TcpProxy.open(to(hostPort)), TcpProxy.open(to(new URL(apiUrl).host))]);
  return {
    options: { hostPort: `127.0.0.1:${grpc.port}`, apiUrl: `http://127.0.0.1:${api.port}` },
    cut: () => Promise.all([grpc.cut(), api.cut()]),
    restore: () => Promise.all([grpc.restore(), api.restore()]),
  };
}

onEngine("hatchet", "HATCHET_CLIENT_TOKEN", "hatchet: ends and edges", () => {
  describe("hatchet: ends and edges", () => {
    test("a worker that could not start does not start later", async () => {
      const [queue, name] = [newName("q"), newName("late")];
      const server = await proxied();
      const backend = (await open(server.options)).register(defineTask({ name: newName("task"), queue, handler: async (n: number) => n }));
      const ours = process.listeners("SIGTERM");
      await server.cut();
      await expect(backend.startWorker({ queues: [queue], name })).rejects.toMatchObject({ code: "BACKEND_UNAVAILABLE" });
      await server.restore();
      await sleep(8_000);
      const { rows = [] } = await HatchetClient.init({ log_level: "OFF" }).workers.list();
      expect(rows.filter((worker) => worker.name.includes(name))).toEqual([]);
      expect(process.listeners("SIGTERM")).toEqual(ours);
      await backend.close();
      await server.cut();
    }, 60_000);

    test("a stop is over soon after its grace period, also while the server is away", async () => {
      const queue = newName("q");
      const server = await proxied();
      const [backend, direct] = [await open(server.options), await open()];
      let began = 0;
      const task = defineTask({
        name: newName("long"),
        queue,
        handler: async (_: null, { signal }) => {
          began++;
          await sleep(120_000, undefined, { signal });
        },
      });
      const waits = defineWorkflow({ name: newName("waits"), queue, handler: async (wf) => wf.waitForSignal("go") });
      const worker = await backend.register(task, waits).startWorker({ queues: [queue] });
      const [run, waiting] = [await direct.submit(task, null), await direct.submit(waits, null)];
      await expect.poll(async () => [began, (await waiting.result()).status], { timeout: 30_000 }).toEqual([1, "running"]);
      await server.cut();
      const stopped = performance.now();
      await worker.stop({ grace: "2s" });
      // The limit covers the grace period, the release of aborted attempts, and the closing.
      expect(performance.now() - stopped).toBeLessThan(20_000);
      await Promise.all([run.cancel(), waiting.cancel()]);
      await Promise.all([backend.close(), direct.close()]);
    }, 120_000);

    test("many keyed submits at the same moment all come through, each key once", async () => {
      const queue = newName("q");
      const backend = await open();
      const task = defineTask({ name: newName("keyed"), queue, handler: async (n: number) => n });
      const submits = Array.from({ length: 200 }, (_, n) => backend.submit(task, n, { idempotencyKey: `${n % 60}` }));
      const runs = await Promise.all(submits);
      expect(new Set(runs.map(({ id }) => id)).size).toBe(60);
      expect(runs.filter(({ deduplicated }) => !deduplicated)).toHaveLength(60);
      await backend.close();
    }, 60_000);

    test("rate limits of a definition are kept by the engine; those of a submission alone are refused", async () => {
      const queue = newName("q");
      const MINUTE = 1;
      await HatchetClient.init({ log_level: "OFF" }).ratelimits.upsert({ key: queue, limit: 2, duration: MINUTE });
      const backend = await open();
      let started = 0;
      const rateLimits = [{ staticKey: queue, units: 1 }];
      const task = defineTask({
        name: newName("limited"),
        queue,
        native: { hatchet: { rateLimits } },
        handler: async (_: null) => void started++,
      });
      await backend.register(task).startWorker({ queues: [queue] });
      for (let n = 0; n < 5; n++) await backend.submit(task, null);
      await expect.poll(() => started, { timeout: 20_000 }).toBeGreaterThan(0);
      await sleep(5_000);
      // The limit is approximate, but never allows all of them.
      expect(started).toBeLessThan(5);
      await expect(backend.submit(task, null, { native: { hatchet: { description: "mine" } } })).rejects.toMatchObject({
        code: "UNSUPPORTED_CAPABILITY",
      });
      await backend.close();
    }, 60_000);

    test("a run whose data is damaged settles CORRUPT_RUN, and the others go on", async () => {
      const queue = newName("q");
      const backend = await open();
      const task = defineTask({ name: newName("task"), queue, handler: async (n: number) => n + 1 });
      const workflow = defineWorkflow({ name: newName("workflow"), queue, handler: async (wf, n: number) => wf.run(task, n) });
      await backend.register(task, workflow).startWorker({ queues: [queue] });
      expect(await (await backend.submit(workflow, 1)).output({ timeout: "30s" })).toBe(2);
      const client = HatchetClient.init({ log_level: "OFF" });
      const damaged = await Promise.all(
        [task.name, workflow.name].flatMap((name) =>
          ["{", "null", JSON.stringify({ name: 5 })].map(async (taskBackend) => {
            const desiredWorkerLabels = { [`queue:${queue}`]: { value: 1, required: true } };
            const ref = await client.runNoWait(name, {}, { additionalMetadata: { taskBackend }, desiredWorkerLabels });
            return ref.getWorkflowRunId();
          }),
        ),
      );
      for (const id of damaged) {
        const run = await backend.getRun(id);
        await expect(run.output({ timeout: "30s" })).rejects.toMatchObject({ failure: { code: "CORRUPT_RUN" } });
        expect((await run.result()).attempts).toBe(0);
      }
      expect(await (await backend.submit(workflow, 2)).output({ timeout: "30s" })).toBe(3);
      await backend.close();
    }, 120_000);

    test("backends of other namespaces do not see a run, and what is no run is not found", async () => {
      const queue = newName("q");
      const [mine, theirs] = [await open({ namespace: newName("mine") }), await open({ namespace: newName("theirs") })];
      const run = await mine.submit(defineTask({ name: newName("task"), queue, handler: async (n: number) => n }), 1);
      expect((await run.result()).status).toBe("pending");
      for (const id of [run.id, "not-a-run", "00000000-0000-4000-8000-000000000000"]) {
        await expect(theirs.getResult(id)).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
        await expect(theirs.signal(id, "go")).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
        await expect(theirs.cancel(id)).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
      }
      await run.cancel();
      await Promise.all([mine.close(), theirs.close()]);
    }, 60_000);
  });
});
