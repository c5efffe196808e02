import assert from "node:assert/strict";
import { defineTask, defineWorkflow, TaskTimedOutError } from "@task-backend/core";
import { z } from "zod";
import { casesOf } from "../suite.ts";
import { increment, workflowCasesOf } from "./common.ts";

/* Cases of slow user code in unexpected places: schemas, ticks, handlers that block the event loop. */

const rule5 = casesOf(5);
const rule18 = workflowCasesOf(18);
const rule26 = workflowCasesOf(26);

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A schema that is slow each time, or the first few times only. */
function slow(ms: number, times = Number.POSITIVE_INFINITY) {
  let left = times;
  return z.object({ n: z.number() }).refine(async () => {
    if (left-- > 0) await pause(ms);
    return true;
  });
}

export const slowCodeCases = [
  rule5(
    "the timeout begins with the handler: a slow schema takes nothing from it",
    async (t) => {
      const task = defineTask({
        name: "slow_schema",
        // Both times have room for a busy machine: the timeout must be shorter than the schema takes.
        input: slow(4_000),
        timeout: 3_000,
        retry: { attempts: 1 },
        handler: async ({ n }, context) => {
          await pause(100);
          return context.signal.aborted ? "aborted" : n;
        },
      });
      const { backend } = await t.serve([task]);
      const run = await (await t.backend()).submit("slow_schema", { n: 1 }, { queue: t.queue });
      assert.equal(await run.output({ timeout: "25s" }), 1);
      assert.equal((await backend.getResult(run.id)).status, "completed");
    },
    { needs: ["timeout"], timeoutMs: 40_000 },
  ),
  rule5(
    "a handler that blocks the event loop past its timeout has timed out, however it ends",
    async (t) => {
      const task = defineTask({
        name: "blocks_loop",
        timeout: 100,
        retry: { attempts: 1 },
        handler: async (how: string) => {
          const until = performance.now() + 250;
          while (performance.now() < until);
          if (how === "throws") throw new Error("too late");
          return "too late";
        },
      });
      const { backend } = await t.serve([task], { concurrency: 1 });
      for (const how of ["returns", "throws"]) {
        const run = await backend.submit(task, how, { queue: t.queue });
        await assert.rejects(run.output({ timeout: "15s" }), TaskTimedOutError, how);
      }
    },
    { needs: ["timeout"] },
  ),
  rule18(
    "a first tick that takes ten seconds is replayed as it was: wf.now() before the first step too",
    async (t) => {
      const step = defineTask({ name: "step", queue: t.queue, handler: async (at: number) => (t.note("step"), at) });
      const make = (schema: ReturnType<typeof slow>) =>
        defineWorkflow({
          name: "slow_first_tick",
          queue: t.queue,
          input: schema,
          handler: async (wf) => {
            const before = wf.now();
            const at = await wf.run(step, before);
            return [before === at, await wf.waitForSignal("go"), wf.now() >= before];
          },
        });
      const first = await t.serve([step, make(slow(10_000, 1))]);
      const run = await (await t.backend()).submit("slow_first_tick", { n: 1 }, { queue: t.queue });
      await t.until("the first step", () => t.lines().includes("step"), 45_000);
      await pause(1_000);
      await first.worker.stop();
      await t.serve([step, make(slow(0))]);
      await run.signal("go", "on");
      assert.deepEqual(await run.output({ timeout: "45s" }), [true, "on", true]);
      assert.deepEqual(t.lines(), ["step"]);
    },
    120_000,
  ),
  rule26(
    "a workflow whose schema still parses is not stalled, whatever comes meanwhile",
    async (t) => {
      const events: string[] = [];
      const flow = defineWorkflow({
        name: "parses_slowly",
        queue: t.queue,
        input: slow(1_500),
        handler: async (wf, { n }) => [
          await wf.run(increment, n, { queue: t.queue }),
          await wf.waitForSignal("a"),
          await wf.waitForSignal("b"),
        ],
      });
      const { backend } = await t.serve([flow, increment], {
        onAttempt: ({ kind, outcome, error }) => void (kind === "workflow" && events.push(`${outcome} ${error?.code ?? ""}`.trim())),
      });
      const run = await (await t.backend()).submit("parses_slowly", { n: 1 }, { queue: t.queue });
      await t.until("the workflow to be taken", async () => (await backend.getResult(run.id)).status !== "pending");
      for (const name of ["a", "b"]) {
        await pause(300);
        await run.signal(name, name);
      }
      assert.deepEqual(await run.output({ timeout: "30s" }), [2, "a", "b"]);
      assert.deepEqual(events, ["completed"]);
    },
    45_000,
  ),
];
