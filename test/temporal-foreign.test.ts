import { randomBytes } from "node:crypto";
import { createBackend, defineTask, defineWorkflow, silentLogger } from "@task-backend/core";
import { temporal } from "@task-backend/temporal";
import { Client, Connection } from "@temporalio/client";
import type { PayloadCodec } from "@temporalio/common";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { onEngine } from "./engines/required.ts";

/*
 * Foreign work on our queues, and data that Temporal would refuse: each settles or is dropped alone, and everything else goes on.
 */

const newQueue = (): string => `q-${randomBytes(5).toString("hex")}`;

/** An encoding that nothing else can decode. */
const foreign: PayloadCodec = {
  encode: async (payloads) => payloads.map(({ data }) => ({ metadata: { encoding: Buffer.from("binary/nobody") }, data: data ?? null })),
  decode: async (payloads) => payloads,
};

onEngine("temporal", "TEMPORAL_ADDRESS", "temporal, with others on its queues", (address) => {
  describe("temporal, with others on its queues", () => {
    const queue = newQueue();
    const double = defineTask({ name: "double", queue, handler: async (n: number) => 2 * n });
    const waits = defineWorkflow({ name: "waits", queue, handler: async (wf) => wf.waitForSignal("go") });
    let connection: Connection;
    let client: Client;
    let stranger: Client;
    const open = () => createBackend(temporal({ address, heartbeatTimeout: "3s" }), { log: silentLogger });
    let backend: Awaited<ReturnType<typeof open>>;
    beforeAll(async () => {
      connection = await Connection.connect({ address });
      client = new Client({ connection });
      stranger = new Client({ connection, dataConverter: { payloadCodecs: [foreign] } });
      backend = await open();
      await backend.register(double, waits).startWorker();
    });
    afterAll(async () => {
      await backend.close();
      await connection.close();
    });

    test("activities whose arguments are none of ours settle as CORRUPT_RUN, and ours go on", async () => {
      const start = (by: Client, name: string, ...args: unknown[]) =>
        by.activity.start(name, { id: newQueue(), taskQueue: queue, args, startToCloseTimeout: "1m" });
      const damaged = await Promise.all([
        start(client, "double", 1, null),
        start(client, "double", 1, { headers: 5 }),
        start(client, "double", 1, { kind: "other" }),
        start(stranger, "double", 1),
        start(client, "taskBackendTick"),
        start(client, "taskBackendTick", { workflowId: 1 }),
      ]);
      expect(await (await backend.submit(double, 2)).output({ timeout: "20s" })).toBe(4);
      for (const { activityId } of damaged) {
        const run = await backend.getRun(`activity:${activityId}`);
        await expect(run.output({ timeout: "20s" })).rejects.toMatchObject({ failure: { code: "CORRUPT_RUN" } });
        expect(await run.result()).toMatchObject({ status: "failed", attempts: 1, error: { code: "CORRUPT_RUN" } });
      }
      const without = await start(client, "double");
      expect(await client.activity.getHandle(without.activityId).result()).toBe(0);
    }, 60_000);

    test("workflows whose arguments are none of ours settle as CORRUPT_RUN; a signal that cannot be read is dropped", async () => {
      const start = async (by: Client, ...args: unknown[]) => {
        const { workflowId } = await by.workflow.start("waits", { workflowId: newQueue(), taskQueue: queue, args });
        return backend.getRun(`workflow:${workflowId}`);
      };
      for (const run of [await start(client, 1, "text"), await start(client, 1, null), await start(stranger, 1)]) {
        await expect(run.output({ timeout: "20s" })).rejects.toMatchObject({ failure: { code: "CORRUPT_RUN" } });
      }
      const run = await start(client, 1);
      await stranger.workflow.getHandle(run.id.replace("workflow:", "")).signal("go", "unreadable");
      await run.signal("go", "readable");
      expect(await run.output({ timeout: "20s" })).toBe("readable");
    }, 60_000);

    test("half a surrogate in an error, and a sleep of a hundred years, are no reason to try again", async () => {
      const own = newQueue();
      const text = `${"x".repeat(100)}\ud83d`;
      const fails = defineTask({ name: "fails", queue: own, retry: { attempts: 1 }, handler: async () => Promise.reject(new Error(text)) });
      const sleeps = defineWorkflow({ name: "sleeps", queue: own, handler: async (wf) => wf.sleep(36_525 * 86_400_000) });
      const catches = defineWorkflow({ name: "fails_inside", queue: own, handler: async (wf) => wf.run(fails, undefined as never) });
      const other = await open();
      await other.register(fails, sleeps, catches).startWorker();
      const failed = await other.submit(fails, undefined as never);
      await expect(failed.output({ timeout: "20s" })).rejects.toMatchObject({ failure: { message: text } });
      await expect((await other.submit(catches, null as never)).output({ timeout: "20s" })).rejects.toMatchObject({
        failure: { step: "fails", message: text },
      });
      const long = await other.submit(sleeps, null as never);
      await expect.poll(async () => (await long.result()).status, { timeout: 20_000 }).toBe("running");
      await long.cancel();
      await expect(long.output({ timeout: "20s" })).rejects.toMatchObject({ code: "TASK_CANCELLED" });
      await other.close();
    }, 60_000);

    test("ids that can be none of Temporal's are unknown, wherever they are asked for", async () => {
      for (const id of [
        "x",
        "workflow:",
        `workflow:${"x".repeat(1_001)}`,
        "activity:\ud83d",
        "default:1",
        "workflow:none",
        "activity:none",
      ]) {
        const unknown = { code: "RUN_NOT_FOUND" };
        await expect(backend.getResult(id)).rejects.toMatchObject(unknown);
        await expect(backend.cancel(id)).rejects.toMatchObject(unknown);
        await expect(backend.signal(id, "go")).rejects.toMatchObject(unknown);
      }
    });
  });
});

test("a URL with an option that is none names those that are", () => {
  expect(() => temporal({ url: "temporal://host:7233/space?retentoin=1d" })).toThrow(/"retentoin".*namespace, apiKey, heartbeatTimeout/);
  expect(() => temporal({ url: "temporal://host:7233/%E0%A4%A" })).toThrow(/not properly encoded/);
  expect(() => temporal({ url: "temporal://host:7233/space?connectTimeout=soon" })).toThrow(/connectTimeout/);
});
