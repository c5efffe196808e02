import assert from "node:assert/strict";
import { defineTask, defineWorkflow, RunNotFoundError, TaskBackendError, TaskCancelledError, WaitTimeoutError } from "@task-backend/core";
import { casesOf } from "../suite.ts";

const rule34 = casesOf(34);
const rule35 = casesOf(35);
const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    (value) => `resolved ${JSON.stringify(value)}`,
    (error: unknown) => (error instanceof TaskBackendError ? error.code : String(error)),
  );

/** Rejects when a wait without a timeout does not end. */
const ended = <T>(wait: Promise<T>): Promise<T> =>
  Promise.race([wait, new Promise<never>((_, reject) => setTimeout(() => reject(new Error("the wait goes on")), 15_000).unref())]);

export const boundaryCases = [
  rule34(
    "what is no run is RUN_NOT_FOUND for every call, whatever the form of its id, and nothing is written there",
    async (t) => {
      const { backend } = await t.serve([echo]);
      const run = await backend.submit(echo, 1, { queue: t.queue });
      await run.output({ timeout: "15s" });
      const { id: real } = run;
      const keys = ["meta", "events", "id", "wait", "prioritized", "completed", "workflows:meta", "x"].map((key) => `${t.queue}:${key}`);
      const near = [`${real}:1`, `${real}.0`, `${real}/x`, real.slice(0, -1), `x${real}`, `workflow:${real}`, `task:${real}`, t.queue];
      const odd = ["0", "-1", "9".repeat(40), "x:meta", "..", "a/b", "*", "%", "é 🦊", "__proto__", "' OR 1=1 --", "{}", " "];
      const impossible = ["00000000-0000-0000-0000-000000000000", "x".repeat(5_000), "a\u0000b", "\ud83d"];
      const ids = [...keys, ...near, ...odd, ...impossible];
      const seen = await Promise.all(
        ids.map(async (id) => {
          const calls = [backend.getResult(id), backend.getRun(id), backend.signal(id, "go"), backend.cancel(id)];
          return [id.slice(0, 60), ...(await Promise.all(calls.map(codeOf)))];
        }),
      );
      const wrong = seen.filter(([, ...codes]) => codes.some((code) => !/^(RUN_NOT_FOUND|INVALID_ARGUMENT)$/.test(code)));
      assert.deepEqual(wrong, []);
      for (const id of ["", 42, null, undefined, {}] as string[])
        for (const call of [backend.getResult(id), backend.getRun(id), backend.signal(id, "go"), backend.cancel(id)])
          assert.equal(await codeOf(call), "INVALID_ARGUMENT");
      assert.equal(await (await backend.submit(echo, "still served", { queue: t.queue })).output({ timeout: "15s" }), "still served");
      assert.equal((await run.result()).status, "completed");
    },
    { timeoutMs: 45_000 },
  ),
  rule34(
    "a wait ends with its run, for all who wait, and with its record: past the retention it is RUN_NOT_FOUND",
    async (t) => {
      const { backend } = await t.serve([echo], {}, { retentionMs: 2_000 });
      const run = await backend.submit(echo, "kept", { queue: t.queue, delay: 500 });
      assert.deepEqual(await Promise.all([1, 2, 3].map(() => ended(run.output()))), ["kept", "kept", "kept"]);
      await t.until("the record to go", async () => (await codeOf(run.result())) === "RUN_NOT_FOUND");
      await assert.rejects(ended(run.output()), RunNotFoundError);
    },
    { needs: ["delay"], timeoutMs: 45_000 },
  ),
  rule34("a wait ends by its own bounds, and the run and other waits for it go on", async (t) => {
    const backend = await t.backend();
    const run = await backend.submit(echo, "later", { queue: t.queue });
    const other = ended(run.output());
    await assert.rejects(run.output({ timeout: 200 }), WaitTimeoutError);
    const controller = new AbortController();
    const aborted = run.output({ signal: controller.signal });
    setTimeout(() => controller.abort(new RangeError("enough")), 200);
    await assert.rejects(ended(aborted), RangeError);
    await assert.rejects(run.output({ signal: AbortSignal.abort(new RangeError("before")) }), RangeError);
    assert.equal((await run.result()).status, "pending");
    await t.serve([echo]);
    assert.equal(await other, "later");
  }),
  rule34("a wait ends when its run is cancelled before it began, also from elsewhere", async (t) => {
    const backend = await t.backend();
    const run = await backend.submit(echo, 1, { queue: t.queue });
    const waits = [ended(run.output()), ended((await (await t.backend()).getRun(run.id)).output())];
    const outcomes = Promise.all(waits.map((wait) => assert.rejects(wait, TaskCancelledError)));
    await new Promise((resolve) => setTimeout(resolve, 300));
    await (await t.backend()).cancel(run.id);
    await outcomes;
  }),

  rule35(
    "instances of one server never affect each other: ids, cancels and workers",
    async (t) => {
      const others = await t.apart();
      assert.ok(others.length > 0, "the engine under test names no instance apart");
      const here = await t.backend();
      const block = defineTask({
        name: "apart",
        retry: { attempts: 1 },
        handler: async (_: null, context) => {
          t.note(`started ${context.id}`);
          await new Promise((resolve) => setTimeout(resolve, 2_500));
          return context.signal.aborted ? "aborted" : "done";
        },
      });
      await here.register(block, echo).startWorker({ queues: [t.queue] });
      for (const { by, backend: there } of others) {
        const plain = await there.submit(echo, by, { queue: `${t.queue}-there` });
        assert.equal(await codeOf(here.getResult(plain.id)), "RUN_NOT_FOUND", by);
        assert.equal(await codeOf(here.cancel(plain.id)), "RUN_NOT_FOUND", by);
        const unserved = await there.submit(echo, by, { queue: t.queue });
        const keyed = here.capabilities.features.idempotency === "unsupported" ? {} : { idempotencyKey: `customer ${by}` };
        const [mine, theirs] = await Promise.all([here, there].map((backend) => backend.submit(block, null, { queue: t.queue, ...keyed })));
        assert.ok(mine && theirs);
        assert.deepEqual([mine.deduplicated, theirs.deduplicated], [false, false], by);
        await t.until("the run here to start", () => t.lines().includes(`started ${mine.id}`));
        await theirs.cancel();
        await assert.rejects(theirs.output({ timeout: "15s" }), TaskCancelledError);
        assert.equal(await mine.output({ timeout: "20s" }), "done", by);
        // The worker here has been idle or free since: runs of the other instance are not its runs, even on a queue of the same name.
        const result = await unserved.result();
        assert.deepEqual([result.status, result.attempts], ["pending", 0], by);
        await Promise.all([unserved.cancel(), plain.cancel()]);
      }
    },
    { needs: ["cancelRunning"], timeoutMs: 75_000 },
  ),
  rule35(
    "so it is with both sides at work: signals, and cancels of what is at work there",
    async (t) => {
      const others = await t.apart();
      const here = await t.backend();
      const flow = defineWorkflow({
        name: "apart_flow",
        handler: async (wf) => [await wf.run(echo, "step", { queue: t.queue }), await wf.waitForSignal("word")],
      });
      await here.register(flow, echo).startWorker({ queues: [t.queue] });
      const keyed = here.capabilities.features.idempotency === "unsupported" ? {} : { idempotencyKey: "order 7" };
      const mine = await here.submit(flow, null, { queue: t.queue, ...keyed });
      for (const { by, backend: there } of others) {
        await there.register(flow, echo).startWorker({ queues: [t.queue] });
        const theirs = await there.submit(flow, null, { queue: t.queue, ...keyed });
        await theirs.signal("word", by);
        assert.deepEqual(await theirs.output({ timeout: "20s" }), ["step", by]);
        const cancelled = await there.submit(flow, null, { queue: t.queue });
        await cancelled.cancel();
        await assert.rejects(cancelled.output({ timeout: "20s" }), TaskCancelledError);
      }
      assert.equal((await mine.result()).finishedAt, undefined);
      await mine.signal("word", "here");
      assert.deepEqual(await mine.output({ timeout: "20s" }), ["step", "here"]);
    },
    { needs: ["workflows"], timeoutMs: 75_000 },
  ),
];
