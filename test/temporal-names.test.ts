import { randomBytes } from "node:crypto";
import { createBackend, defineTask, defineWorkflow, silentLogger, taskRef, type TaskBackend } from "@task-backend/core";
import { temporal } from "@task-backend/temporal";
import { Client, Connection } from "@temporalio/client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { onEngine } from "./engines/required.ts";

/*
 * Runs submitted by name only: Temporal must be told whether they are activities or workflows before anybody knows.
 */

const newQueue = (): string => `q-${randomBytes(5).toString("hex")}`;

onEngine("temporal", "TEMPORAL_ADDRESS", "temporal, by name only", (address) => {
  describe("temporal, by name only", () => {
    let connection: Connection;
    let client: Client;
    let producer: TaskBackend;
    const open = () => createBackend(temporal({ address, heartbeatTimeout: "3s" }), { log: silentLogger });
    beforeAll(async () => {
      connection = await Connection.connect({ address });
      client = new Client({ connection });
      producer = await open();
    });
    afterAll(async () => {
      await producer.close();
      await connection.close();
    });

    test("a signal that comes before any worker waits for the workflow, each once and in order", async () => {
      const queue = newQueue();
      const run = await producer.submit<string[]>("collects", 2, { queue });
      await run.signal("item", "a", { dedupeId: "1" });
      await run.signal("item", "a again", { dedupeId: "1" });
      await run.signal("item", "b");
      const collects = defineWorkflow({
        name: "collects",
        queue,
        handler: async (wf, n: number) => {
          const items: unknown[] = [];
          while (items.length < n) items.push(await wf.waitForSignal("item"));
          return items;
        },
      });
      const backend = await open();
      await backend.register(collects).startWorker();
      expect(await run.output({ timeout: "20s" })).toEqual(["a", "b"]);
      await expect(run.signal("item", "late")).rejects.toMatchObject({ code: "RUN_SETTLED" });
      await backend.close();
    });

    test("where the name is a task's, the signal starts nothing, and the task runs once", async () => {
      const queue = newQueue();
      const run = await producer.submit<number>("counts", 1, { queue });
      await run.signal("item", "a");
      let starts = 0;
      let end = (): void => {};
      const ended = new Promise<void>((resolve) => (end = resolve));
      const counts = defineTask({
        name: "counts",
        queue,
        handler: async (n: number) => {
          starts++;
          await ended;
          return n + 1;
        },
      });
      const backend = await open();
      await backend.register(counts).startWorker();
      await expect.poll(() => starts, { timeout: 10_000 }).toBe(1);
      const workflow = client.workflow.getHandle(`${run.id.replace("activity:", "")}.workflow`);
      expect(await workflow.result()).toBeNull();
      const late = await producer.submit<number>("counts", 3, { queue });
      await expect.poll(() => starts, { timeout: 10_000 }).toBe(2);
      await expect(late.signal("item")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
      end();
      expect([await run.output({ timeout: "10s" }), await late.output({ timeout: "10s" })]).toEqual([2, 4]);
      expect(starts).toBe(2);
      await backend.close();
    }, 30_000);

    test("a run that was cancelled after a signal, and before any worker, never runs", async () => {
      const queue = newQueue();
      const byName = await producer.submit("never", null, { queue });
      let begun = 0;
      const never = defineWorkflow({
        name: "never",
        queue,
        handler: async () => {
          begun++;
        },
      });
      const known = await producer.submit(never, null);
      for (const run of [byName, known]) {
        await run.signal("item");
        await run.signal("item");
        expect(await run.result()).toMatchObject({ status: "pending", attempts: 0 });
        await run.cancel();
        expect(await run.result()).toMatchObject({ status: "cancelled", attempts: 0 });
      }
      const backend = await open();
      await backend.register(never).startWorker();
      await (await backend.submit(never, null)).output({ timeout: "10s" });
      expect(begun).toBe(1);
      await backend.close();
    }, 30_000);

    test("the version that takes a workflow up is its version", async () => {
      const queue = newQueue();
      const version = (name: string) =>
        defineWorkflow({
          name: "versioned",
          version: name,
          queue,
          handler: async (wf) => {
            await wf.waitForSignal("go");
            return name;
          },
        });
      const run = await producer.submit("versioned", null, { queue });
      await run.signal("unseen");
      // A server without standalone activities, or another program, starts it like this.
      const bare = newQueue();
      await client.workflow.start("versioned", { workflowId: bare, taskQueue: queue, args: [null] });
      const old = await open();
      await old.register(version("1")).startWorker();
      const { workflow } = client;
      const begun = async (id: string) => (await workflow.getHandle(id).describe()).historyLength;
      await expect.poll(() => begun(bare), { timeout: 10_000 }).toBeGreaterThan(4);
      await expect.poll(() => begun(`${run.id.replace("activity:", "")}.workflow`), { timeout: 10_000 }).toBeGreaterThan(4);
      await old.close();
      const both = await open();
      await both.register(version("1"), version("2")).startWorker();
      await run.signal("go");
      await workflow.getHandle(bare).signal("go", null);
      expect(await run.output({ timeout: "20s" })).toBe("1");
      expect(await workflow.getHandle(bare).result()).toBe("1");
      await both.close();
    }, 60_000);

    test("a step by reference that is a workflow is a child: its own id, and cancelled with its parent", async () => {
      const queue = newQueue();
      const child = defineWorkflow({
        name: "child_by_ref",
        queue,
        handler: async (wf, n: number) => (n === 0 ? wf.waitForSignal("never") : n),
      });
      const reference = taskRef<number, number>({ name: "child_by_ref", queue });
      const parent = defineWorkflow({
        name: "parent_by_ref",
        queue,
        handler: async (wf, n: number) => Promise.race([wf.run(reference, n), wf.waitForSignal("enough")]),
      });
      const backend = await open();
      await backend.register(child, parent).startWorker();
      const outputs = [5, 6, 7].map(async (n) => (await backend.submit(parent, n)).output({ timeout: "20s" }));
      expect(await Promise.all(outputs)).toEqual([5, 6, 7]);
      const [settled, cancelled] = [await backend.submit(parent, 0), await backend.submit(parent, 0)];
      for (const run of [settled, cancelled]) {
        await expect.poll(() => backend.getResult(`${run.id}.0`).then(({ status }) => status, String), { timeout: 10_000 }).toBe("running");
      }
      await settled.signal("enough", "done");
      expect(await settled.output({ timeout: "10s" })).toBe("done");
      await cancelled.cancel();
      for (const run of [settled, cancelled]) {
        await expect.poll(() => backend.getResult(`${run.id}.0`).then(({ status }) => status), { timeout: 10_000 }).toBe("cancelled");
      }
      await backend.close();
    }, 60_000);
  });
});
