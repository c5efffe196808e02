import assert from "node:assert/strict";
import { defineTask, defineWorkflow, TaskCancelledError, TaskFailedError, type WorkflowContext } from "@task-backend/core";
import type { CaseContext } from "../context.ts";
import { boom, increment, settled, workflowCasesOf } from "./common.ts";

const rule19 = workflowCasesOf(19);
const rule22 = workflowCasesOf(22);
const rule23 = workflowCasesOf(23);
const rule24 = workflowCasesOf(24);
const rule25 = workflowCasesOf(25);
const rule26 = workflowCasesOf(26);
const rule27 = workflowCasesOf(27);

/** A task that runs until it is aborted, and notes that. */
function hanging(t: CaseContext, name: string) {
  return defineTask({
    name,
    queue: t.queue,
    retry: { attempts: 1 },
    handler: async (_: null, context) => {
      t.note(`${name} started`);
      await new Promise((_resolve, reject) => context.signal.addEventListener("abort", () => reject(context.signal.reason as Error)));
    },
  });
}

export const workflowCases = [
  rule19("a recorded step never runs again, however often the function is replayed", async (t) => {
    const effects: string[] = [];
    const step = defineTask({
      name: "effect",
      queue: t.queue,
      handler: async (n: number) => {
        effects.push(`step ${n}`);
        return n;
      },
    });
    let replays = 0;
    const workflow = defineWorkflow({
      name: "effects",
      handler: async (wf, count: number) => {
        replays++;
        let sum = 0;
        for (let n = 0; n < count; n++) sum += await wf.run(step, n);
        return sum;
      },
    });
    const { backend } = await t.serve([step, workflow], {}, { coldTicks: true });
    assert.equal(await (await backend.submit(workflow, 8, { queue: t.queue })).output({ timeout: "15s" }), 28);
    assert.deepEqual(
      effects,
      Array.from({ length: 8 }, (_, n) => `step ${n}`),
    );
    assert.ok(replays >= 8, "the function was not replayed, so nothing was proved");
  }),

  rule22("a failing step throws TaskFailedError inside, where it can be caught", async (t) => {
    const workflow = defineWorkflow({
      name: "catching",
      handler: async (wf) => {
        try {
          await wf.run(boom, null, { queue: t.queue });
        } catch (error) {
          assert.ok(error instanceof TaskFailedError);
          return [error.task, error.failure.code, error.failure.message, await wf.run(increment, 1, { queue: t.queue })];
        }
      },
    });
    const { backend } = await t.serve([boom, increment, workflow]);
    assert.deepEqual(await (await backend.submit(workflow, null, { queue: t.queue })).output({ timeout: "15s" }), [
      "boom",
      "E_BROKEN",
      "broken",
      2,
    ]);
  }),
  rule22("uncaught, the run fails as the step did, and error.step names it; in nested workflows, the way to it", async (t) => {
    const inner = defineWorkflow({ name: "inner", queue: t.queue, handler: async (wf) => wf.run(boom, null, { queue: t.queue }) });
    const outer = defineWorkflow({ name: "outer", queue: t.queue, handler: async (wf) => wf.run(inner, null) });
    const own = defineWorkflow({
      name: "own_error",
      queue: t.queue,
      handler: async () => {
        throw new SyntaxError("mine");
      },
    });
    const { backend } = await t.serve([boom, inner, outer, own]);
    const [innerResult, outerResult, ownResult] = await Promise.all([
      settled(await backend.submit(inner, null)),
      settled(await backend.submit(outer, null)),
      settled(await backend.submit(own, null)),
    ]);
    assert.ok(innerResult.status === "failed" && outerResult.status === "failed" && ownResult.status === "failed");
    assert.deepEqual([innerResult.error.step, innerResult.error.code, innerResult.error.message], ["boom", "E_BROKEN", "broken"]);
    assert.equal(outerResult.error.step, "inner/boom");
    assert.deepEqual(
      [ownResult.error.name, ownResult.error.message, ownResult.error.step, ownResult.attempts],
      ["SyntaxError", "mine", undefined, 1],
    );
  }),

  rule23("cancelling a workflow cancels what it started, and it settles cancelled", async (t) => {
    const step = hanging(t, "hanging");
    const workflow = defineWorkflow({ name: "cancellable", handler: async (wf) => wf.run(step, null) });
    const { backend } = await t.serve([step, workflow]);
    const run = await backend.submit(workflow, null, { queue: t.queue });
    await t.until("the step to start", () => t.lines().length > 0);
    await run.cancel();
    await assert.rejects(run.output({ timeout: "10s" }), TaskCancelledError);
    assert.equal((await run.result()).status, "cancelled");
  }),
  rule23("it may catch the cancellation and run cleanup steps, which are carried out", async (t) => {
    const step = hanging(t, "hanging");
    const clean = defineTask({ name: "clean", queue: t.queue, handler: async () => t.note("cleaned") });
    const workflow = defineWorkflow({
      name: "cleaning",
      handler: async (wf) => {
        try {
          await Promise.all([wf.run(step, null), wf.sleep("1h"), wf.waitForSignal("never", { timeout: "2h" })]);
        } catch (error) {
          if (error instanceof TaskCancelledError) await wf.run(clean, null);
        }
        return "a return value does not undo it";
      },
    });
    const { backend } = await t.serve([step, clean, workflow]);
    const run = await backend.submit(workflow, null, { queue: t.queue });
    await t.until("the step to start", () => t.lines().length > 0);
    await run.cancel();
    await assert.rejects(run.output({ timeout: "10s" }), TaskCancelledError);
    assert.deepEqual(t.lines(), ["hanging started", "cleaned"]);
  }),
  rule23("so are steps that have not begun, or wait for their next attempt", async (t) => {
    const unserved = defineTask({ name: "unserved", queue: `${t.queue}_nobody`, handler: async () => t.note("never") });
    const failing = defineTask({
      name: "failing",
      queue: t.queue,
      retry: { attempts: 2, backoff: { delay: "10m" } },
      handler: async () => {
        t.note("failed");
        throw new Error("the first time");
      },
    });
    const clean = defineTask({ name: "clean", queue: t.queue, handler: async () => t.note("cleaned") });
    const workflow = defineWorkflow({
      name: "waiting_steps",
      handler: async (wf) => {
        const steps = [wf.run(unserved, null), wf.run(failing, null), wf.run(unserved, null)];
        const settled = await Promise.allSettled(steps);
        if (settled.every((one) => one.status === "rejected" && one.reason instanceof TaskCancelledError)) await wf.run(clean, null);
      },
    });
    const { backend } = await t.serve([failing, clean, workflow]);
    const run = await backend.submit(workflow, null, { queue: t.queue });
    await t.until("a step to fail", () => t.lines().length > 0);
    await run.cancel();
    await assert.rejects(run.output({ timeout: "10s" }), TaskCancelledError);
    assert.deepEqual(t.lines(), ["failed", "cleaned"]);
  }),
  rule23("settling in any way cancels what is unsettled: the losers of a race", async (t) => {
    const reasons: string[] = [];
    const loser = defineTask({
      name: "loser",
      queue: t.queue,
      handler: async (_: null, context) => {
        t.note("loser started");
        await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
        reasons.push((context.signal.reason as Error).name);
      },
    });
    const winner = defineTask({
      name: "winner",
      queue: t.queue,
      handler: async () => t.until("the loser to start", () => t.lines().length > 0).then(() => "won"),
    });
    const nested = defineWorkflow({ name: "nested_loser", queue: t.queue, handler: async (wf) => wf.run(loser, null) });
    const workflow = defineWorkflow({ name: "racing", handler: async (wf) => Promise.race([wf.run(nested, null), wf.run(winner, null)]) });
    const { backend } = await t.serve([loser, winner, nested, workflow]);
    assert.equal(await (await backend.submit(workflow, null, { queue: t.queue })).output({ timeout: "10s" }), "won");
    await t.until("the loser to be aborted", () => reasons.length === 1);
    assert.deepEqual(reasons, ["TaskCancelledError"]);
  }),
  rule23("a workflow that has not begun is cancelled at once", async (t) => {
    const backend = await t.backend();
    const workflow = defineWorkflow({ name: "unbegun", handler: async () => 1 });
    const run = await backend.submit(workflow, null, { queue: t.queue });
    // Several cancellations at the same moment count as one: none rejects for an unknown run.
    await Promise.all([1, 2, 3, 4, 5].map(() => run.cancel()));
    await assert.rejects(run.output({ timeout: "5s" }), TaskCancelledError);
  }),

  rule24(
    "a replay that differs shows retrying, NON_DETERMINISM, and goes on with code that fits",
    async (t) => {
      const note = defineTask({ name: "note", queue: t.queue, handler: async (_: null) => t.note("noted") });
      const versionOf = (first: number) =>
        defineWorkflow({
          name: "changed",
          queue: t.queue,
          handler: async (wf) => {
            const n = await wf.run(increment, first, { queue: t.queue });
            await wf.run(note, null);
            await wf.waitForSignal("go");
            return wf.run(increment, n, { queue: t.queue });
          },
        });
      const before = await t.serve([increment, note, versionOf(1)]);
      const run = await before.backend.submit(versionOf(1), null);
      await t.until("the run to wait for its signal", async () => (await run.result()).status === "running");
      await t.until("its first steps to be done", () => t.lines().length === 1);
      await before.worker.stop();
      const wrong = await t.serve([increment, note, versionOf(100)]);
      await run.signal("go");
      await t.until("the run to show the difference", async () => {
        const result = await run.result();
        return result.status === "retrying" && result.error?.code === "NON_DETERMINISM";
      });
      await wrong.worker.stop();
      await t.serve([increment, note, versionOf(1)]);
      assert.equal(await run.output({ timeout: "15s" }), 3);
    },
    40_000,
  ),

  rule25("a run is only advanced by a worker that has its version", async (t) => {
    const make = (version: string) =>
      defineWorkflow({ name: "versioned", version, queue: t.queue, handler: async (wf) => (await wf.waitForSignal("go"), version) });
    const one = await t.serve([make("1")]);
    const run = await one.backend.submit(make("1"), null);
    await t.until("version 1 to begin", async () => (await run.result()).status === "running");
    await one.worker.stop();
    const two = await t.serve([make("2"), increment]);
    await run.signal("go");
    assert.equal(await (await two.backend.submit(make("2"), null)).signal("go"), undefined);
    await (await two.backend.submit(increment, 1, { queue: t.queue, delay: 300 })).output({ timeout: "10s" });
    assert.equal((await run.result()).finishedAt, undefined);
    await t.serve([make("1"), make("2")]);
    assert.equal(await run.output({ timeout: "15s" }), "1");
  }),

  rule26(
    "a workflow that waits for anything but wf calls is told so, and goes on with fixed code",
    async (t) => {
      const make = (wait: (wf: WorkflowContext) => Promise<unknown>) =>
        defineWorkflow({
          name: "stalling",
          queue: t.queue,
          handler: async (wf, n: number) => {
            const first = await wf.run(increment, n, { queue: t.queue });
            await wait(wf);
            return wf.run(increment, first, { queue: t.queue });
          },
        });
      const stuck = make(() => new Promise(() => {}));
      const broken = await t.serve([increment, stuck]);
      const run = await broken.backend.submit(stuck, 1);
      await t.until("the run to be told", async () => {
        const result = await run.result();
        return result.status === "retrying" && result.error?.code === "WORKFLOW_STALLED" && result.error.message.includes("wf.sleep");
      });
      await broken.worker.stop();
      await t.serve([increment, make((wf) => wf.sleep(10))]);
      assert.equal(await run.output({ timeout: "15s" }), 3);
    },
    40_000,
  ),

  rule27(
    "the records read and the restarts of 2,000 steps are at most 15 times those of 200",
    async (t) => {
      let entries = 0;
      let restarts = 0;
      let limit = Number.POSITIVE_INFINITY;
      const workflow = defineWorkflow({
        name: "long",
        queue: t.queue,
        handler: async (wf, count: number) => {
          restarts++;
          let n = 0;
          for (let step = 0; step < count; step++) n = await wf.run(increment, n, { queue: t.queue });
          return n;
        },
      });
      const onTick = (tick: { entries: readonly unknown[] }): void => void (entries += tick.entries.length);
      const { backend } = await t.serve([increment, workflow], {}, { onTick });
      const cost = async (count: number): Promise<number> => {
        entries = 0;
        restarts = 0;
        const run = await backend.submit(workflow, count);
        let ended = false;
        const output = run.output({ timeout: "8m" }).finally(() => (ended = true));
        output.catch(() => {});
        await t.until(
          `${count} steps to cost no more than ${limit}`,
          () => {
            if (entries + restarts > limit) void run.cancel();
            return ended || entries + restarts > limit;
          },
          480_000,
        );
        assert.ok(
          entries + restarts <= limit,
          `${count} steps read ${entries} records and restarted ${restarts} times; allowed are ${limit}`,
        );
        assert.equal(await output, count);
        return entries + restarts;
      };
      limit = 15 * (await cost(200));
      await cost(2_000);
    },
    540_000,
  ),
];
