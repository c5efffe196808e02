import assert from "node:assert/strict";
import { defineTask, defineWorkflow, type TaskBackend } from "@task-backend/core";
import type { CaseContext } from "../context.ts";
import { record } from "../fixtures.ts";
import { casesOf } from "../suite.ts";

const rule29 = casesOf(29);

/** The time that a busy machine may add to a single measurement. */
const BUSY_MS = 2_000;
/** How long a case repeats its round until one is as prompt as declared: other cases share the processor. */
const PATIENCE_MS = 20_000;

/** Returns the time of its start. */
const clock = defineTask({ name: "clock", handler: async () => Date.now() });

/** The time from the answer to a submission until the start of the run. */
async function latenessOn(backend: TaskBackend, queue: string): Promise<number> {
  const run = await backend.submit(clock, null, { queue });
  const submittedAt = Date.now();
  return (await run.output({ timeout: "15s" })) - submittedAt;
}

/**
 * Repeats a round until all its times are within the limit. A busy machine is late now and then; a worker that has forgotten a
 * queue, or only looks at it each second, is late in each round.
 */
async function promptRound(t: CaseContext, limitMs: number, round: () => Promise<readonly number[]>): Promise<void> {
  const seen: string[] = [];
  await t.until(
    () => `a round of starts within ${limitMs} ms each; they came after ${seen.join(" | ")} ms`,
    async () => {
      const lateness = await round();
      seen.push(lateness.join(", "));
      return lateness.every((ms) => ms <= limitMs);
    },
    PATIENCE_MS,
  );
}

const inTurn = async (actions: readonly (() => Promise<number>)[]): Promise<number[]> => {
  const results: number[] = [];
  for (const action of actions) results.push(await action());
  return results;
};

export const promptnessCases = [
  rule29(
    "a run starts within limits.dispatchMs on each queue of an idle worker, the first and the last",
    async (t) => {
      const queues = ["a", "b", "c"].map((letter) => `${t.queue}-${letter}`);
      const { backend } = await t.serve([clock], { queues });
      await promptRound(t, backend.capabilities.limits.dispatchMs, () =>
        inTurn([...queues, ...queues].map((queue) => () => latenessOn(backend, queue))),
      );
    },
    { timeoutMs: 45_000 },
  ),
  rule29(
    "so it does after six idle seconds, on a worker of one slot",
    async (t) => {
      const queues = [`${t.queue}-a`, `${t.queue}-b`];
      const { backend } = await t.serve([clock], { queues, concurrency: 1 });
      await latenessOn(backend, queues[0] as string);
      for (const queue of queues) {
        await new Promise((resolve) => setTimeout(resolve, 6_000));
        const late = await latenessOn(backend, queue);
        assert.ok(late <= backend.capabilities.limits.dispatchMs + BUSY_MS, `it started ${late} ms after it was submitted`);
      }
    },
    { timeoutMs: 60_000 },
  ),
  rule29(
    "what came while every slot was taken starts as soon as one is free, whichever queue it is on",
    async (t) => {
      const [busy, quick] = [`${t.queue}-busy`, `${t.queue}-quick`];
      const open: (() => void)[] = [];
      const blocks = defineTask({ name: "blocks", handler: async () => new Promise<void>((resolve) => open.push(resolve)) });
      for (const slots of [1, 3]) {
        const { backend, worker } = await t.serve([blocks, clock], { queues: [busy, quick], concurrency: slots });
        await promptRound(t, backend.capabilities.limits.dispatchMs + BUSY_MS / 4, async () => {
          const blocking = await backend.submitMany(
            Array.from({ length: slots }, () => ({ task: blocks, input: null, options: { queue: busy } })),
          );
          await t.until("every slot to be taken", () => open.length >= slots);
          const waiting = await backend.submit(clock, null, { queue: quick });
          // Meanwhile every notice of the run has been read and dropped.
          await new Promise((resolve) => setTimeout(resolve, 300));
          const freedAt = Date.now();
          open.pop()?.();
          const late = (await waiting.output({ timeout: "30s" })) - freedAt;
          while (open.length > 0) open.pop()?.();
          await Promise.all(blocking.map((run) => run.output({ timeout: "15s" })));
          return [late];
        });
        await worker.stop();
      }
    },
    { timeoutMs: 90_000 },
  ),
  rule29(
    "two workers in one process, one for workflows and one for their steps, hand over promptly",
    async (t) => {
      const steps = `${t.queue}-steps`;
      const flow = defineWorkflow({
        name: "handing_over",
        queue: t.queue,
        handler: async (wf) => [await wf.run(clock, null, { queue: steps }), await wf.run(clock, null, { queue: steps })],
      });
      const { backend } = await t.serve([flow, clock]);
      await backend.startWorker({ queues: [steps] });
      // The round is a tick, a step, a tick and a step: each counts as a start.
      await promptRound(t, backend.capabilities.limits.dispatchMs * 2, async () => {
        const run = await backend.submit(flow, null);
        const submittedAt = Date.now();
        const [first, second] = (await run.output({ timeout: "15s" })) as [number, number];
        return [first - submittedAt, second - first];
      });
    },
    { needs: ["workflows"], timeoutMs: 45_000 },
  ),
  rule29(
    "what one idle worker of a queue does not know is soon with the one that does, ticks and steps alike",
    async (t) => {
      const flow = defineWorkflow({
        name: "known_to_one",
        queue: t.queue,
        handler: async (wf) => {
          const at: number[] = [];
          for (let n = 0; n < 4; n++) at.push(await wf.run(clock, null, { queue: t.queue }));
          return at;
        },
      });
      const unrelated = defineWorkflow({ name: "unrelated", queue: t.queue, handler: async () => null });
      await t.serve([unrelated, defineTask({ name: "unrelated_task", queue: t.queue, handler: async () => null })]);
      const { backend } = await t.serve([flow, clock]);
      // Between two starts are a tick and a step. Each may go to the wrong worker first, which releases it for a second.
      const limitMs = 2 * (backend.capabilities.limits.dispatchMs + 1_000);
      await promptRound(t, limitMs + BUSY_MS / 4, async () => {
        const run = await backend.submit(flow, null);
        const at = [Date.now(), ...(await run.output({ timeout: "60s" }))];
        return at.slice(1).map((ms, index) => ms - (at[index] as number));
      });
    },
    { needs: ["workflows"], timeoutMs: 120_000 },
  ),
  rule29(
    "so does a worker in another process, on its first queue and its last, also after six idle seconds",
    async (t) => {
      const queues = ["a", "b"].map((letter) => `${t.queue}-${letter}`);
      await t.spawnWorker(["--queues", queues.join()]);
      const backend = await t.backend();
      const { dispatchMs } = backend.capabilities.limits;
      let n = 0;
      const lateness = async (queue: string): Promise<number> => {
        const line = `run ${n++}`;
        await backend.submit(record, { file: t.effects, line }, { queue });
        const submittedAt = Date.now();
        await t.until(`${line} to start`, () => t.lines().some((one) => one.startsWith(`${line} `)));
        return Date.now() - submittedAt;
      };
      await promptRound(t, dispatchMs + BUSY_MS / 4, () => inTurn([...queues, ...queues].map((queue) => () => lateness(queue))));
      await new Promise((resolve) => setTimeout(resolve, 6_000));
      for (const queue of queues) {
        const late = await lateness(queue);
        assert.ok(late <= dispatchMs + BUSY_MS, `after six idle seconds it started ${late} ms after it was submitted`);
      }
    },
    { timeoutMs: 75_000 },
  ),
];
