import assert from "node:assert/strict";
import { defineTask, defineWorkflow, RunSettledError, TaskCancelledError, type Run, type TaskBackend } from "@task-backend/core";
import type { CaseContext } from "../context.ts";
import { increment, workflowCasesOf } from "./common.ts";

const rule36 = workflowCasesOf(36);

/** The time between two moments whose order must be certain, on engines whose timers and clocks are a second apart. */
const APART_MS = 2_500;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A task that notes that it ran. */
const tells = (t: CaseContext, name: string) =>
  defineTask({ name, queue: t.queue, retry: { attempts: 1 }, handler: async (_: null) => t.note(name) });

/** Waits until the workflow has started: its first step has run, and the step's end is recorded. */
async function begun(t: CaseContext, run: Run, line: string): Promise<void> {
  await t.until(`${line} to run`, () => t.lines().includes(line));
  await t.until("the workflow to wait", async () => (await run.result()).status === "running");
  await pause(500);
}

/** On every engine, a signal that comes this long after the deadline of a wait comes after it. */
const TOO_LATE_MS = 900;

/**
 * Sends signals while a workflow ends, each soon after the one before. Each must be taken, or refused as too late, and none may be
 * accepted and lost. `prompt` is false when the machine was too busy to send them soon: then a deadline may have come first.
 */
async function signalsAtEnd(
  backend: TaskBackend,
  queue: string,
  input: unknown,
): Promise<{ accepted: number; taken: number; prompt: boolean }> {
  const run = await backend.submit<number>("counter", input, { queue });
  let accepted = 0;
  let prompt = true;
  let before = Number.POSITIVE_INFINITY;
  const add = async (): Promise<boolean> => {
    const sentAt = Date.now();
    try {
      await run.signal("add");
    } catch (error) {
      if (error instanceof RunSettledError) return false;
      throw error;
    }
    accepted++;
    prompt &&= Date.now() - before < TOO_LATE_MS;
    before = sentAt;
    return true;
  };
  for (let n = 0; n < 3; n++) await add();
  before = Date.now();
  await run.signal("close");
  // The signals become slower, so that the function reaches its end on a busy machine as well.
  for (let n = 1; n <= 30 && (await add()); n++) await pause(Math.random() * 10 * n);
  return { accepted, taken: await run.output({ timeout: "30s" }), prompt };
}

export const orderCases = [
  rule36(
    "a workflow does not complete over a signal that was accepted: each is taken, or refused as RUN_SETTLED",
    async (t) => {
      const counter = defineWorkflow({
        name: "counter",
        queue: t.queue,
        handler: async (wf, lastMs: number) => {
          await wf.waitForSignal("close");
          let n = 0;
          for (;;) {
            const more = await wf.waitForSignal("add", { timeout: lastMs }).then(
              () => true,
              () => false,
            );
            if (!more) return n;
            n++;
          }
        },
      });
      const { backend } = await t.serve([counter]);
      const until = Date.now() + 8_000;
      const lane = async (lastMs: number): Promise<void> => {
        do {
          const { accepted, taken, prompt } = await signalsAtEnd(backend, t.queue, lastMs);
          if (prompt) assert.equal(taken, accepted, `of ${accepted} accepted signals ${taken} were taken, with a timeout of ${lastMs} ms`);
        } while (Date.now() < until);
      };
      await Promise.all([lane(0), lane(0), lane(30)]);
    },
    90_000,
  ),
  rule36(
    "a deadline that passed while no worker was up comes before the signal that came after it",
    async (t) => {
      const first = tells(t, "first");
      const offer = defineWorkflow({
        name: "offer",
        queue: t.queue,
        handler: async (wf, how: string) => {
          await wf.run(first, null);
          const signal = wf.waitForSignal("accept", how === "timeout" ? { timeout: 1_500 } : {}).catch(() => "expired");
          return how === "timeout" ? signal : Promise.race([signal, wf.sleep(1_500).then(() => "expired")]);
        },
      });
      const before = await t.serve([first, offer]);
      const runs = [await before.backend.submit(offer, "timeout"), await before.backend.submit(offer, "sleep")];
      await t.until("both to wait", () => t.lines().length === 2);
      await pause(500);
      await before.worker.stop();
      await pause(1_500 + APART_MS);
      for (const run of runs) await run.signal("accept", "taken too late").catch(() => {});
      await t.serve([first, offer]);
      assert.deepEqual(await Promise.all(runs.map((run) => run.output({ timeout: "30s" }))), ["expired", "expired"]);
    },
    60_000,
  ),
  rule36(
    "so it comes before the end of a step that ended after it, and after one that ended before",
    async (t) => {
      const steps = `${t.queue}-steps`;
      const first = tells(t, "first");
      const timed = defineTask({
        name: "timed",
        handler: async (ms: number) => {
          await pause(ms);
          t.note(`timed ${ms}`);
          return "step";
        },
      });
      const race = defineWorkflow({
        name: "race",
        queue: t.queue,
        handler: async (wf, { stepMs, sleepMs }: { stepMs: number; sleepMs: number }) => {
          await wf.run(first, null);
          const winner = await Promise.race([wf.run(timed, stepMs, { queue: steps }), wf.sleep(sleepMs).then(() => "deadline")]);
          return winner;
        },
      });
      const { backend } = await t.serve([timed], { queues: [steps] });
      const before = await t.serve([first, race]);
      const late = await backend.submit("race", { stepMs: 2_000 + APART_MS, sleepMs: 2_000 }, { queue: t.queue });
      const early = await backend.submit("race", { stepMs: 1_500, sleepMs: 1_500 + 2 * APART_MS }, { queue: t.queue });
      await t.until("both to begin", () => t.lines().filter((line) => line === "first").length === 2);
      await pause(700);
      await before.worker.stop();
      await t.until("both steps to end", () => t.lines().filter((line) => line.startsWith("timed")).length === 2);
      await pause(1_500 + APART_MS);
      await t.serve([first, race]);
      assert.equal(await late.output({ timeout: "30s" }), "deadline");
      assert.equal(await early.output({ timeout: "30s" }), "step");
    },
    60_000,
  ),
  rule36(
    "a signal in time that came while no worker was up is taken, though its deadline has passed when one comes",
    async (t) => {
      const first = tells(t, "first");
      const offer = defineWorkflow({
        name: "offer_in_time",
        queue: t.queue,
        handler: async (wf) => {
          await wf.run(first, null);
          return wf.waitForSignal("accept", { timeout: 2_000 + APART_MS }).catch(() => "expired");
        },
      });
      const before = await t.serve([first, offer]);
      const run = await before.backend.submit(offer, null);
      await begun(t, run, "first");
      await before.worker.stop();
      await run.signal("accept", "in time");
      await pause(2_500 + APART_MS);
      await t.serve([first, offer]);
      assert.equal(await run.output({ timeout: "30s" }), "in time");
    },
    60_000,
  ),
  rule36(
    "a cancel that comes with the outcome of the last step: the run completes, or sees the cancel and cleans up",
    async (t) => {
      const steps = `${t.queue}-steps`;
      const clean = tells(t, "cleaned");
      const last = defineTask({ name: "last", handler: async (_: null) => t.note("last") });
      const flow = defineWorkflow({
        name: "cancelled_at_the_end",
        queue: t.queue,
        handler: async (wf) => {
          try {
            await wf.run(last, null, { queue: steps });
            return "completed";
          } catch (error) {
            await wf.run(clean, null);
            throw error;
          }
        },
      });
      const before = await t.serve([flow, clean]);
      const run = await before.backend.submit(flow, null);
      await t.until("the workflow to wait", async () => (await run.result()).status === "running");
      await pause(700);
      await before.worker.stop();
      const { backend } = await t.serve([last], { queues: [steps] });
      await t.until("the last step to run", () => t.lines().includes("last"));
      await pause(700);
      await backend.cancel(run.id);
      await t.serve([flow, clean]);
      const output = await run.output({ timeout: "30s" }).catch((error: unknown) => {
        assert.ok(error instanceof TaskCancelledError, String(error));
        return "cancelled";
      });
      assert.deepEqual([output, t.lines().includes("cleaned")], output === "completed" ? ["completed", false] : ["cancelled", true]);
    },
    60_000,
  ),
  rule36(
    "the same, many times and at the same moment: a run that settles cancelled has cleaned up",
    async (t) => {
      const clean = defineTask({ name: "clean", queue: t.queue, handler: async (n: number) => t.note(`cleaned ${n}`) });
      const quick = defineTask({ name: "quick", queue: t.queue, handler: async (ms: number) => pause(ms) });
      const flow = defineWorkflow({
        name: "cancelled_anywhere",
        queue: t.queue,
        handler: async (wf, n: number) => {
          try {
            for (let step = 0; step < 3; step++) await wf.run(quick, 5);
          } catch (error) {
            await wf.run(clean, n);
            throw error;
          }
          return n;
        },
      });
      const { backend } = await t.serve([quick, clean, flow]);
      const runs = await backend.submitMany(Array.from({ length: 12 }, (_, n) => ({ task: flow, input: n })));
      const ended = runs.map((run) => run.output({ timeout: "45s" }).catch((error: unknown) => error));
      await Promise.race(ended);
      for (const run of runs) {
        // A run that has started has something to undo; one that has not would be cancelled at once.
        if ((await run.result()).status !== "pending") await run.cancel();
        await pause(Math.random() * 30);
      }
      for (const [n, outcome] of (await Promise.all(ended)).entries()) {
        if (outcome === n) continue;
        assert.ok(outcome instanceof TaskCancelledError, String(outcome));
        assert.ok(t.lines().includes(`cleaned ${n}`), `run ${n} was cancelled with nothing undone`);
      }
    },
    90_000,
  ),
  rule36(
    "the cancel of a workflow that has begun and whose worker has stopped runs its cleanup",
    async (t) => {
      const [first, clean] = [tells(t, "charged"), tells(t, "refunded")];
      const flow = defineWorkflow({
        name: "begun_and_left",
        queue: t.queue,
        handler: async (wf, how: string) => {
          await wf.run(first, null);
          try {
            await (how === "sleep" ? wf.sleep("1h") : wf.waitForSignal("never"));
          } finally {
            await wf.run(clean, null);
          }
        },
      });
      const before = await t.serve([first, clean, flow]);
      const runs = [await before.backend.submit(flow, "sleep"), await before.backend.submit(flow, "signal")];
      await t.until("both to begin", () => t.lines().length === 2);
      await pause(700);
      await before.worker.stop();
      await pause(1_000);
      for (const run of runs) await run.cancel();
      await t.serve([first, clean, flow]);
      for (const run of runs) await assert.rejects(run.output({ timeout: "30s" }), TaskCancelledError);
      assert.deepEqual(t.lines().sort(), ["charged", "charged", "refunded", "refunded"]);
    },
    60_000,
  ),
  rule36(
    "a step that is cancelled in the tick that made it never runs",
    async (t) => {
      const [first, charge, refund] = [tells(t, "first"), tells(t, "charged"), tells(t, "refunded")];
      const flow = defineWorkflow({
        name: "charged_and_cancelled",
        queue: t.queue,
        handler: async (wf) => {
          await wf.run(first, null);
          await wf.waitForSignal("go");
          try {
            await wf.run(charge, null);
          } catch (error) {
            await wf.run(refund, null);
            throw error;
          }
        },
      });
      const before = await t.serve([first, charge, refund, flow]);
      const runs = await before.backend.submitMany(Array.from({ length: 5 }, () => ({ task: flow, input: null })));
      await t.until("all to begin", () => t.lines().length === runs.length);
      await pause(700);
      await before.worker.stop();
      // The next tick of each run gets both: it starts the step, and cancels it.
      for (const run of runs) {
        await run.signal("go");
        await run.cancel();
      }
      await t.serve([first, charge, refund, flow]);
      for (const run of runs) await assert.rejects(run.output({ timeout: "45s" }), TaskCancelledError);
      await pause(500);
      assert.deepEqual(
        t.lines().filter((line) => line === "charged"),
        [],
      );
    },
    75_000,
  ),
  rule36("a step that nobody awaits when the workflow ends in the same tick never runs", async (t) => {
    const never = tells(t, "never");
    const flow = defineWorkflow({
      name: "ends_at_once",
      queue: t.queue,
      handler: async (wf) => {
        const n = await wf.run(increment, 1, { queue: t.queue });
        return Promise.race([wf.run(never, null), Promise.resolve(n)]);
      },
    });
    const { backend } = await t.serve([increment, never, flow]);
    const runs = await backend.submitMany(Array.from({ length: 5 }, () => ({ task: flow, input: null })));
    for (const run of runs) assert.equal(await run.output({ timeout: "15s" }), 2);
    await (await backend.submit(increment, 1, { queue: t.queue })).output({ timeout: "15s" });
    await pause(500);
    assert.deepEqual(t.lines(), []);
  }),
];
