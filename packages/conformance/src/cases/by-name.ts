import assert from "node:assert/strict";
import { defineTask, defineWorkflow, InvalidArgumentError, taskRef, TaskCancelledError, type Run } from "@task-backend/core";
import { casesOf } from "../suite.ts";
import { increment, workflowCasesOf } from "./common.ts";

/*
 * Cases of runs that were submitted by name only: the worker that has the code decides their kind, and all other rules hold as for
 * any run.
 */

const rule9 = casesOf(9);
const rule7 = casesOf(7);
const rule21 = workflowCasesOf(21);
const rule23 = workflowCasesOf(23);
const rule25 = workflowCasesOf(25);

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export const byNameCases = [
  rule21(
    "a workflow submitted by name takes signals before a worker has it, and after its first worker has gone early",
    async (t) => {
      const make = () =>
        defineWorkflow({
          name: "named",
          handler: async (wf) => {
            t.note("begun");
            return [await wf.waitForSignal("word"), await wf.waitForSignal("word"), await wf.waitForSignal("word")];
          },
        });
      const producer = await t.backend();
      const run: Run = await producer.submit("named", null, { queue: t.queue });
      await run.signal("word", "before");
      const first = await t.serve([make()]);
      await t.until("the workflow to begin", () => t.lines().includes("begun"));
      await first.worker.stop();
      await run.signal("word", "between");
      await t.serve([make()]);
      await run.signal("word", "after");
      assert.deepEqual(await run.output({ timeout: "30s" }), ["before", "between", "after"]);
    },
    60_000,
  ),
  rule21("a waiting task takes no signal, and is told so where its definition is known", async (t) => {
    const backend = await t.backend();
    const waiting = await backend.submit(increment, 1, { queue: t.queue });
    await assert.rejects(waiting.signal("go"), InvalidArgumentError);
    await t.serve([increment]);
    assert.equal(await waiting.output({ timeout: "15s" }), 2);
  }),
  rule23(
    "cancelling a workflow cancels what it started by reference, tasks and workflows",
    async (t) => {
      const hangs = defineTask({
        name: "hangs",
        queue: t.queue,
        retry: { attempts: 1 },
        handler: async (from: string, context) => {
          t.note(`${from} started`);
          await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
          t.note(`${from} aborted`);
        },
      });
      const child = defineWorkflow({ name: "child", queue: t.queue, handler: async (wf) => wf.run(hangs, "child") });
      const refs = {
        child: taskRef<null>({ name: "child", queue: t.queue }),
        hangs: taskRef<string, void>({ name: "hangs", queue: t.queue }),
      };
      const parent = defineWorkflow({
        name: "parent_of_refs",
        queue: t.queue,
        handler: async (wf) => Promise.all([wf.run(refs.child, null), wf.run(refs.hangs, "parent")]),
      });
      const { backend } = await t.serve([parent]);
      await t.serve([hangs, child]);
      const run = await backend.submit(parent, null);
      const said = (): string => t.lines().join(", ");
      await t.until(
        () => `both to hang; so far: ${said()}`,
        () => t.lines().length === 2,
        20_000,
      );
      await run.cancel();
      await assert.rejects(run.output({ timeout: "20s" }), TaskCancelledError);
      await t.until(
        () => `both to be aborted; so far: ${said()}`,
        () => t.lines().length === 4,
        20_000,
      );
    },
    60_000,
  ),
  rule25(
    "a run submitted by name keeps the version that its first worker chose, through a rollout",
    async (t) => {
      const make = (version: string) =>
        defineWorkflow({
          name: "rolled_out",
          version,
          handler: async (wf) => {
            t.note(`begun ${version}`);
            const n = await wf.run(increment, Number(version), { queue: t.queue });
            return [version, wf.version, n, await wf.waitForSignal("go")];
          },
        });
      const producer = await t.backend();
      const run: Run = await producer.submit("rolled_out", null, { queue: t.queue });
      const old = await t.serve([make("1"), increment]);
      await t.until("version 1 to begin", () => t.lines().includes("begun 1"));
      await pause(1_000);
      await old.worker.stop();
      const both = await t.serve([make("1"), make("2"), increment]);
      await run.signal("go", "gone");
      assert.deepEqual(await run.output({ timeout: "30s" }), ["1", "1", 2, "gone"]);
      const next: Run = await producer.submit("rolled_out", null, { queue: t.queue });
      await next.signal("go", "gone");
      assert.deepEqual(await next.output({ timeout: "30s" }), ["2", "2", 3, "gone"]);
      await both.worker.stop();
    },
    75_000,
  ),
  rule25(
    "so does one whose old code is gone: a worker with the new code alone releases it",
    async (t) => {
      const make = (version: string) =>
        defineWorkflow({ name: "left_behind", version, handler: async (wf) => (t.note(`begun ${version}`), wf.waitForSignal("go")) });
      const producer = await t.backend();
      const run: Run = await producer.submit("left_behind", null, { queue: t.queue });
      const old = await t.serve([make("1")]);
      await t.until("version 1 to begin", () => t.lines().includes("begun 1"));
      await pause(1_000);
      await old.worker.stop();
      await t.serve([make("2")]);
      await run.signal("go", "gone");
      await pause(1_500);
      assert.deepEqual([(await run.result()).finishedAt, t.lines().includes("begun 2")], [undefined, false]);
      await t.serve([make("1")]);
      assert.equal(await run.output({ timeout: "30s" }), "gone");
    },
    60_000,
  ),
  rule7(
    "the steps of a workflow are as urgent as it is, unless they say otherwise",
    async (t) => {
      const { features } = await t.capabilities();
      const order: string[] = [];
      let open = (): void => {};
      const blocker = defineTask({ name: "blocker", handler: async () => new Promise<void>((resolve) => (open = resolve)) });
      const plain = defineTask({ name: "plain", handler: async (label: string) => void order.push(label) });
      let asked = false;
      const beside = defineTask({ name: "beside", queue: `${t.queue}-beside`, handler: async (_: null) => void (asked = true) });
      const flow = defineWorkflow({
        name: "urgent_flow",
        queue: t.queue,
        handler: async (wf) =>
          Promise.all([
            wf.run(plain, "low step", { queue: t.queue, priority: "low" }),
            wf.run(plain, "step", { queue: t.queue }),
            wf.run(beside, null),
          ]),
      });
      const { backend } = await t.serve([blocker, plain, flow], { concurrency: 1 });
      await t.serve([beside], { queues: [beside.queue] });
      const first = await backend.submit(blocker, null, { queue: t.queue });
      await t.until("the slot to be taken", async () => (await first.result()).status === "running");
      const others = await backend.submitMany(
        ["plain 1", "plain 2", "plain 3"].map((input) => ({ task: plain, input, options: { queue: t.queue } })),
      );
      const urgent = await backend.submit(flow, null, { priority: "urgent" });
      // The other step of the same tick has run, so both are in their queues by now, or soon after, as the engine needs a moment.
      await t.until("the steps to be asked for", () => asked);
      await pause(1_000);
      open();
      await Promise.all([first, ...others, urgent].map((run) => run.output({ timeout: "20s" })));
      assert.equal(order.length, 5);
      if (features.priority === "approximate") assert.ok(order.indexOf("step") < order.indexOf("plain 3"), order.join());
      else assert.deepEqual(order, ["step", "plain 1", "plain 2", "plain 3", "low step"]);
    },
    { needs: ["priority", "workflows"], timeoutMs: 40_000 },
  ),
  rule9(
    "a burst of submissions with keys is accepted, each once",
    async (t) => {
      const backends = await Promise.all([t.backend(), t.backend(), t.backend()]);
      const submit = (n: number, copy: number): Promise<Run> =>
        (backends[(n + copy) % 3] as (typeof backends)[0]).submit(increment, n, { queue: t.queue, idempotencyKey: `burst ${n}` });
      const runs = await Promise.all(Array.from({ length: 90 }, (_, index) => submit(index % 45, Math.floor(index / 45))));
      assert.equal(new Set(runs.map((run) => run.id)).size, 45);
      assert.equal(runs.filter((run) => run.deduplicated).length, 45);
      await Promise.all(runs.slice(0, 45).map((run) => run.cancel()));
    },
    { needs: ["idempotency"], timeoutMs: 60_000 },
  ),
];
