import assert from "node:assert/strict";
import { defineTask, defineWorkflow, InvalidArgumentError, RunSettledError, WaitTimeoutError } from "@task-backend/core";
import { LOSES_MS, napper, orderly, pause, shape } from "../fixtures.ts";
import { workflowCasesOf } from "./common.ts";

const rule18 = workflowCasesOf(18);
const rule20 = workflowCasesOf(20);
const rule21 = workflowCasesOf(21);

const wait = defineTask({
  name: "wait",
  retry: { attempts: 1 },
  handler: async ({ label, ms, fails = false }: { label: string; ms: number; fails?: boolean }, context) => {
    await pause(ms, context.signal);
    if (fails) throw new Error(label);
    return label;
  },
});

export const replayCases = [
  rule18("all, race, any, allSettled and branches with inverted durations, replayed at every tick", async (t) => {
    const workflow = defineWorkflow({
      name: "combinators",
      queue: t.queue,
      handler: async (wf) => {
        const step = (label: string, ms: number, fails = false) => wf.run(wait, { label, ms, fails }, { queue: t.queue });
        const order: string[] = [];
        const branch = async (label: string, ms: number) => {
          order.push(await step(`${label}1`, ms));
          order.push(await step(`${label}2`, 40 - ms));
        };
        await Promise.all([branch("a", 40), branch("b", 20), branch("c", 0)]);
        const race = await Promise.race([step("slow", LOSES_MS), step("fast", 5)]);
        const any = await Promise.any([step("bad", 0, true), step("good", 15)]);
        const settled = await Promise.allSettled([step("x", 10), step("y", 0, true)]);
        const random = [wf.random(), wf.random()];
        const times = [wf.now(), (await wf.sleep(15), wf.now())];
        return { order, race, any, settled: settled.map(({ status }) => status), random, times };
      },
    });
    const { backend } = await t.serve([wait, workflow], {}, { coldTicks: true });
    const output = await (await backend.submit(workflow, null)).output({ timeout: "15s" });
    assert.equal(output.order.length, 6);
    for (const label of ["a", "b", "c"]) assert.ok(output.order.indexOf(`${label}1`) < output.order.indexOf(`${label}2`));
    assert.deepEqual([output.race, output.any, output.settled], ["fast", "good", ["fulfilled", "rejected"]]);
    const [before, after] = output.times as [number, number];
    assert.ok(after - before >= 15);
    assert.notEqual(output.random[0], output.random[1]);
  }),
  rule18("what decides the order once decides it in each replay", async (t) => {
    // The function acts on the order of arrival: a replay in another order would start other steps.
    const workflow = defineWorkflow({
      name: "arrivals",
      queue: t.queue,
      handler: async (wf, round: number) => {
        const arrived: string[] = [];
        await Promise.all(
          ["p", "q", "r", "s"].map(async (label, index) => {
            arrived.push(await wf.run(wait, { label, ms: ((index + round) % 4) * 7 }, { queue: t.queue }));
            arrived.push(await wf.run(wait, { label: `${label} after ${arrived.join("")}`, ms: 0 }, { queue: t.queue }));
          }),
        );
        return arrived;
      },
    });
    const { backend } = await t.serve([wait, workflow], {}, { coldTicks: true });
    const runs = await Promise.all([0, 1, 2, 3].map((round) => backend.submit(workflow, round)));
    for (const run of runs) {
      const arrived = await run.output({ timeout: "15s" });
      for (const [index, line] of arrived.entries()) {
        const [label, seen] = line.split(" after ");
        if (seen !== undefined)
          assert.equal(
            arrived
              .slice(0, arrived.indexOf(label as string) + 1)
              .join("")
              .slice(0, seen.length),
            seen,
            `entry ${index}`,
          );
      }
    }
  }),
  rule18(
    "the result is the same with workers killed at random moments",
    async (t) => {
      const backend = await t.backend();
      const run = await backend.submit(shape, { file: t.effects, queue: t.queue }, { queue: t.queue });
      const { recoveryMs } = backend.capabilities.limits;
      let settled = false;
      const output = run.output({ timeout: 4 * recoveryMs + 20_000 }).finally(() => (settled = true));
      output.catch(() => {});
      for (const aliveMs of [30, 90, 200]) {
        if (settled) break;
        const worker = await t.spawnWorker();
        const seen = t.lines().length;
        // The lifetime starts with the first work, so that the moment of death differs, and not only the start-up time.
        await t.until("the worker to do something", () => settled || t.lines().length > seen, recoveryMs + 10_000);
        await new Promise((resolve) => setTimeout(resolve, aliveMs));
        worker.kill("SIGKILL");
        await worker.exited;
      }
      if (!settled) await t.spawnWorker();
      assert.deepEqual(await output, ["a1a2", "b1b2", "c1c2", "fast", "last"]);
    },
    // A kill may cost the recovery of two workers.
    200_000,
  ),

  rule18(
    "a function that acts on the order of keys sees the same order in each replay",
    async (t) => {
      const keys = { zebra: 1, ox: { longest: 1, a: 2 }, ant: 3 };
      const first = await t.spawnWorker();
      const backend = await t.backend();
      const run = await backend.submit(orderly, { ...keys, file: t.effects, queue: t.queue }, { queue: t.queue });
      await run.signal("first", keys);
      await t.until("the steps to run", () => t.lines().length === 3);
      // Meanwhile the last step is recorded, before its worker is killed.
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      first.kill("SIGKILL");
      await first.exited;
      await t.spawnWorker();
      await run.signal("second", "done");
      assert.equal(await run.output({ timeout: 2 * backend.capabilities.limits.recoveryMs + 20_000 }), "done");
      assert.deepEqual(
        t.lines().map((line) => line.split(":")[0]),
        ["input", "output", "signal"],
      );
    },
    100_000,
  ),

  rule20("a sleep is never early", async (t) => {
    const workflow = defineWorkflow({
      name: "sleeping",
      queue: t.queue,
      handler: async (wf) => {
        const before = wf.now();
        await Promise.all([wf.sleep(350), wf.sleep(100)]);
        return wf.now() - before;
      },
    });
    const { backend } = await t.serve([workflow]);
    const startedAt = Date.now();
    const slept = await (await backend.submit(workflow, null)).output({ timeout: "15s" });
    assert.ok(slept >= 350, `woke after ${slept} ms by the record`);
    assert.ok(Date.now() - startedAt >= 350, "woke early by the clock");
  }),
  rule20(
    "a sleep survives every worker being down",
    async (t) => {
      const first = await t.spawnWorker();
      const backend = await t.backend();
      const run = await backend.submit(napper, { file: t.effects, queue: t.queue, ms: 1_000 }, { queue: t.queue });
      await t.until("the first step to run", () => t.lines().length === 1);
      await t.until("the workflow to sleep", async () => (await run.result()).status === "running");
      await new Promise((resolve) => setTimeout(resolve, 300));
      first.kill("SIGKILL");
      await first.exited;
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      await t.spawnWorker();
      assert.equal(await run.output({ timeout: backend.capabilities.limits.recoveryMs + 10_000 }), "after");
      assert.deepEqual(
        t.lines().map((line) => line.split(" ")[0]),
        ["before", "after"],
      );
    },
    40_000,
  ),

  rule21("a signal sent before the wait is kept; each is delivered once and in order; dedupeId makes two one", async (t) => {
    const workflow = defineWorkflow({
      name: "listening",
      queue: t.queue,
      handler: async (wf) => {
        const heard: unknown[] = [];
        for (let n = 0; n < 5; n++) heard.push(await wf.waitForSignal<number>("number"));
        heard.push(await wf.waitForSignal("other"));
        const extra = await wf
          .waitForSignal("number", { timeout: 100 })
          .catch((error: unknown) => error instanceof WaitTimeoutError && "no more");
        return [...heard, extra];
      },
    });
    const producer = await t.backend();
    const run = await producer.submit(workflow, null);
    await run.signal("number", 1, { dedupeId: "one" });
    await run.signal("number", 1, { dedupeId: "one" });
    await run.signal("other", { kept: true });
    await run.signal("number", 2);
    await t.serve([workflow], {}, { coldTicks: true });
    await run.signal("number", 3);
    await run.signal("number", 4, { dedupeId: "four" });
    await run.signal("number", 5);
    await run.signal("number", 4, { dedupeId: "four" });
    assert.deepEqual(await run.output({ timeout: "15s" }), [1, 2, 3, 4, 5, { kept: true }, "no more"]);
  }),
  rule21("a wait times out, and a signal in time beats its timeout", async (t) => {
    const workflow = defineWorkflow({
      name: "patient",
      queue: t.queue,
      handler: async (wf) => {
        const late = await wf.waitForSignal("never", { timeout: 120 }).catch((error: Error) => error.name);
        const [first, second] = await Promise.all([wf.waitForSignal("x", { timeout: "1h" }), wf.waitForSignal("x", { timeout: "1h" })]);
        return [late, first, second];
      },
    });
    const { backend } = await t.serve([workflow]);
    const run = await backend.submit(workflow, null);
    await run.signal("x", "one");
    await run.signal("x", null);
    assert.deepEqual(await run.output({ timeout: "15s" }), ["WaitTimeoutError", "one", null]);
    await assert.rejects(run.signal("x"), RunSettledError);
  }),
  rule21("a task takes no signal, and is told so", async (t) => {
    const { backend } = await t.serve([wait]);
    const run = await backend.submit(wait, { label: "task", ms: 300 }, { queue: t.queue });
    await t.until("the task to start", async () => (await run.result()).status === "running");
    await assert.rejects(run.signal("x"), InvalidArgumentError);
    assert.equal(await run.output({ timeout: "10s" }), "task");
  }),
];
