import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import {
  createBackend,
  defineTask,
  defineWorkflow,
  silentLogger,
  TaskCancelledError,
  type Run,
  type TaskBackend,
} from "@task-backend/core";
import { hatchet } from "@task-backend/hatchet";
import { describe, expect, test } from "vitest";
import { onEngine } from "./engines/required.ts";

/*
 * Starts, waits without a worker, and ends of workflows, as Hatchet stores them.
 */

/** New names and queues for each run, so that tests do not affect each other. */
const newName = (name: string): string => `${name}-${randomBytes(5).toString("hex")}`;
const open = (): Promise<TaskBackend> => createBackend(hatchet(), { log: silentLogger });
const untilRunning = (run: Run): Promise<void> => expect.poll(async () => (await run.result()).status, { timeout: 30_000 }).toBe("running");

onEngine("hatchet", "HATCHET_CLIENT_TOKEN", "hatchet: workflows", () => {
  describe("hatchet: workflows", () => {
    test("one that has begun, whose worker was stopped, is cancelled: the next worker runs its cleanup", async () => {
      const queue = newName("q");
      const effects: string[] = [];
      const step = defineTask({ name: newName("step"), queue, handler: async (what: string) => void effects.push(what) });
      const saga = defineWorkflow({
        name: newName("saga"),
        queue,
        handler: async (wf) => {
          await wf.run(step, "done");
          await wf.waitForSignal("go").catch(async (error: unknown) => {
            await wf.run(step, "undone");
            throw error;
          });
        },
      });
      const backend = (await open()).register(step, saga);
      const worker = await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(saga, null);
      await expect.poll(() => effects, { timeout: 30_000 }).toEqual(["done"]);
      await worker.stop({ grace: 0 });
      await run.cancel();
      expect((await run.result()).status).toBe("running");
      await backend.startWorker({ queues: [queue] });
      await expect(run.output({ timeout: "60s" })).rejects.toThrow(TaskCancelledError);
      expect(effects).toEqual(["done", "undone"]);
      await backend.close();
    }, 120_000);

    test("submitted by name it keeps the version that began it, and takes signals while no worker has it", async () => {
      const [queue, name] = [newName("q"), newName("by-name")];
      const of = (version: string) =>
        defineWorkflow({ name, queue, version, handler: async (wf) => [await wf.waitForSignal("go"), version] });
      const [submitter, old, both] = [await open(), await open(), await open()];
      old.register(of("1"));
      both.register(of("1"), of("2"));
      const run = await submitter.submit(name, null, { queue });
      const worker = await old.startWorker({ queues: [queue] });
      await untilRunning(run);
      await worker.stop({ grace: 0 });
      await run.signal("go", "there");
      await both.startWorker({ queues: [queue] });
      expect(await run.output({ timeout: "60s" })).toEqual(["there", "1"]);
      await Promise.all([submitter.close(), old.close(), both.close()]);
    }, 120_000);

    test("a task that was submitted by name takes no signal once a worker has said what it is", async () => {
      const [queue, name] = [newName("q"), newName("task")];
      const [submitter, backend] = [await open(), await open()];
      const over = new AbortController();
      backend.register(defineTask({ name, queue, handler: async (_: null) => sleep(60_000, 1, { signal: over.signal }).catch(() => 1) }));
      await backend.startWorker({ queues: [queue] });
      const run = await submitter.submit(name, null, { queue });
      await untilRunning(run);
      await expect
        .poll(() => run.signal("go").catch((error: { code: string }) => error.code), { timeout: 10_000 })
        .toBe("INVALID_ARGUMENT");
      over.abort();
      await Promise.all([submitter.close(), backend.close()]);
    }, 60_000);

    test("a deadline that passed while no worker had it comes before the signal that came later", async () => {
      const queue = newName("q");
      const offer = defineWorkflow({
        name: newName("offer"),
        queue,
        handler: async (wf) => wf.waitForSignal("accept", { timeout: "2s" }).catch(() => "expired"),
      });
      const backend = (await open()).register(offer);
      const worker = await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(offer, null);
      await untilRunning(run);
      await sleep(500);
      await worker.stop({ grace: 0 });
      await sleep(4_000);
      await run.signal("accept", "too late");
      await backend.startWorker({ queues: [queue] });
      expect(await run.output({ timeout: "60s" })).toBe("expired");
      await backend.close();
    }, 120_000);

    test("a step that is cancelled in the tick that made it never runs", async () => {
      const queue = newName("q");
      const effects: string[] = [];
      const step = defineTask({ name: newName("step"), queue, handler: async (_: null) => void effects.push("ran") });
      const one = defineWorkflow({
        name: newName("one"),
        queue,
        handler: async (wf) => {
          await wf.waitForSignal("go");
          await wf.run(step, null);
        },
      });
      const backend = (await open()).register(step, one);
      const worker = await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(one, null);
      await untilRunning(run);
      await worker.stop({ grace: 0 });
      // Both are taken in one tick.
      await run.signal("go");
      await run.cancel();
      await backend.startWorker({ queues: [queue] });
      await expect(run.output({ timeout: "60s" })).rejects.toThrow(TaskCancelledError);
      await sleep(1_500);
      expect(effects).toEqual([]);
      await backend.close();
    }, 120_000);

    test("each signal to a run that ends is taken, or its sender is told that the run has settled", async () => {
      const queue = newName("q");
      const counter = defineWorkflow({
        name: newName("counter"),
        queue,
        handler: async (wf) => {
          await wf.waitForSignal("close");
          return "closed";
        },
      });
      const backend = (await open()).register(counter);
      await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(counter, null);
      await untilRunning(run);
      await run.signal("close");
      const answers: string[] = [];
      while (answers.at(-1) !== "RUN_SETTLED") {
        answers.push(
          await run.signal("late").then(
            () => "accepted",
            (error: { code: string }) => error.code,
          ),
        );
      }
      expect(await run.output({ timeout: "30s" })).toBe("closed");
      expect(new Set(answers).size).toBeLessThanOrEqual(2);
      await backend.close();
    }, 120_000);

    test("a run that waits for other code can be cancelled, with what it started before, and nothing else is", async () => {
      const queue = newName("q");
      const heard: string[] = [];
      const slow = defineTask({
        name: newName("slow"),
        queue,
        handler: async (whose: string, { signal }) => {
          await sleep(60_000, undefined, { signal }).catch(() => heard.push(whose));
        },
      });
      const stray = defineWorkflow({
        name: newName("stray"),
        queue,
        handler: async (wf) => {
          await Promise.race([wf.run(slow, "its"), sleep(300)]);
          return wf.run(slow, "never");
        },
      });
      const backend = (await open()).register(slow, stray);
      await backend.startWorker({ queues: [queue] });
      const [run, other] = [await backend.submit(stray, null), await backend.submit(slow, "another's")];
      const code = async (): Promise<string | undefined> => {
        const result = await run.result();
        return result.status === "retrying" ? result.error?.code : result.status;
      };
      await expect.poll(code, { timeout: 30_000 }).toBe("NON_DETERMINISM");
      // Meanwhile there is another invocation, which does not reach the step again.
      await sleep(5_000);
      await run.cancel();
      await expect(run.output({ timeout: "40s" })).rejects.toThrow(TaskCancelledError);
      await expect.poll(() => heard, { timeout: 10_000 }).toEqual(["its"]);
      expect((await other.result()).status).toBe("running");
      await other.cancel();
      await backend.close();
    }, 120_000);

    test("a child has its own metadata, and its parent's priority", async () => {
      const queue = newName("q");
      const step = defineTask({ name: newName("step"), queue, handler: async (n: number) => n });
      const parent = defineWorkflow({ name: newName("parent"), queue, handler: async (wf) => wf.run(step, 1) });
      const backend = (await open()).register(step, parent);
      await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(parent, null, { priority: "urgent", idempotencyKey: queue });
      expect(await run.output({ timeout: "60s" })).toBe(1);
      const client = HatchetClient.init({ log_level: "OFF" });
      const child = async () => (await client.runs.list({ workflowNames: [step.name], onlyTasks: true })).rows[0]?.additionalMetadata;
      await expect.poll(child, { timeout: 10_000 }).toMatchObject({ taskBackendKey: "" });
      const { taskBackend } = (await child()) as { taskBackend: string };
      expect(JSON.parse(taskBackend)).toMatchObject({ name: step.name, priority: "urgent" });
      await backend.close();
    }, 120_000);
  });
});
