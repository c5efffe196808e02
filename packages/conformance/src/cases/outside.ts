import assert from "node:assert/strict";
import {
  defineTask,
  defineWorkflow,
  NonRetryableError,
  TaskCancelledError,
  type Run,
  type TaskResult,
  type WorkflowContext,
} from "@task-backend/core";
import type { CaseContext } from "../context.ts";
import { increment, settled, workflowCasesOf } from "./common.ts";

const rule37 = workflowCasesOf(37);

const timer = <T>(ms: number, value: T): Promise<T> => new Promise((resolve) => setTimeout(resolve, ms, value));

type Told = Extract<TaskResult, { status: "retrying" }>;

/** Waits until the run reports its error. */
async function told(t: CaseContext, run: Run): Promise<NonNullable<Told["error"]>> {
  let error: Told["error"];
  await t.until(
    "the run to say that it went on outside of wf",
    async () => {
      const result = await run.result();
      assert.ok(result.finishedAt === undefined, `it settled as ${result.status}`);
      if (result.status === "retrying") error = result.error;
      return /^(WORKFLOW_STALLED|NON_DETERMINISM)$/.test(error?.code ?? "");
    },
    20_000,
  );
  return error as NonNullable<Told["error"]>;
}

/** Ways in which a function goes on outside of a tick: its own timer fires while a wf call is pending. */
const STRAYS: Readonly<Record<string, (wf: WorkflowContext, queue: string) => Promise<unknown>>> = {
  ends: async (wf) => Promise.race([wf.waitForSignal("approved"), timer(300, "timed out")]),
  throws: async (wf) =>
    Promise.race([
      wf.waitForSignal("approved"),
      timer(300, null).then(() => {
        throw new RangeError("thrown outside");
      }),
    ]),
  asks: async (wf, queue) => {
    await Promise.race([wf.sleep("1h"), timer(300, "timed out")]);
    return wf.run(increment, 1, { queue });
  },
};

/** Code before and after a change, each with the words that the message about the change, or its cause, must contain. */
const CHANGES: Readonly<
  Record<
    string,
    {
      before: (wf: WorkflowContext, queue: string) => Promise<unknown>;
      after: (wf: WorkflowContext, queue: string) => Promise<unknown>;
      names: RegExp;
    }
  >
> = {
  input: { before: (wf, queue) => wf.run(increment, 1, { queue }), after: (wf, queue) => wf.run(increment, 2, { queue }), names: /input/ },
  task: {
    before: (wf, queue) => wf.run(increment, 1, { queue }),
    after: (wf, queue) => wf.run(fails, "1", { queue }),
    names: /increment/,
  },
  throws: {
    before: (wf, queue) => wf.run(increment, 1, { queue }),
    after: async () => {
      throw new RangeError("instead of the step");
    },
    names: /instead of the step/,
  },
};

const fails = defineTask({ name: "fails", retry: { attempts: 1 }, handler: async (text: string) => Promise.reject(new RangeError(text)) });

export const outsideCases = [
  ...Object.entries(STRAYS).map(([how, stray]) =>
    rule37(
      `a workflow that ${how} outside of a tick is told so while a wf call is pending, and goes on with fixed code`,
      async (t) => {
        const make = (go: typeof stray) => defineWorkflow({ name: `stray_${how}`, queue: t.queue, handler: async (wf) => go(wf, t.queue) });
        const broken = await t.serve([increment, make(stray)]);
        const run = await broken.backend.submit(make(stray), null);
        const error = await told(t, run);
        if (how === "throws") assert.match(JSON.stringify(error.cause), /thrown outside/);
        await broken.worker.stop();
        const fixed =
          how === "asks" ? async (wf: WorkflowContext) => wf.sleep("1h") : async (wf: WorkflowContext) => wf.waitForSignal("approved");
        await t.serve([increment, make(fixed)]);
        if (how === "asks") {
          await t.until("the fixed code to go on", async () => (await run.result()).status === "running", 45_000);
          return run.cancel();
        }
        await run.signal("approved", "by ann");
        assert.equal(await run.output({ timeout: "60s" }), "by ann");
      },
      // The engine retries with a backoff of up to half a minute.
      90_000,
    ),
  ),
  rule37(
    "a crash in between changes nothing: with every tick replayed, a workflow that ends outside of one is told so as well",
    async (t) => {
      const flow = defineWorkflow({
        name: "stray_cold",
        queue: t.queue,
        handler: async (wf) => {
          const n = await wf.run(increment, 1, { queue: t.queue });
          return Promise.race([wf.run(increment, n, { queue: `${t.queue}-nobody` }), timer(300, "timed out")]);
        },
      });
      const { backend } = await t.serve([increment, flow], {}, { coldTicks: true });
      const run = await backend.submit(flow, null);
      await told(t, run);
      await run.cancel();
      assert.equal((await settled(run)).status, "cancelled");
    },
    45_000,
  ),
  rule37("an error of a step looks the same on every replay: its text, its code and its stack can be handed on", async (t) => {
    const keep = defineTask({ name: "keep", queue: t.queue, handler: async (text: string) => text });
    const flow = defineWorkflow({
      name: "reports",
      queue: t.queue,
      handler: async (wf) => {
        const texts: string[] = [];
        for (const what of ["first", "second"]) {
          const error = await wf.run(fails, what, { queue: t.queue }).catch((thrown: Error) => thrown);
          texts.push(await wf.run(keep, `${error.name}: ${error.message}\n${error.stack}\n${JSON.stringify(error.cause)}`));
        }
        const late = await wf.waitForSignal("never", { timeout: 50 }).catch((thrown: Error) => thrown);
        texts.push(await wf.run(keep, String((late as Error).stack)));
        return texts;
      },
    });
    const { backend } = await t.serve([fails, keep, flow], {}, { coldTicks: true });
    const texts = await (await backend.submit(flow, null)).output({ timeout: "20s" });
    assert.match(texts[0] as string, /first/);
    assert.match(texts[1] as string, /second/);
  }),
  rule37(
    "so it does for another worker, after a stop",
    async (t) => {
      const keep = defineTask({ name: "keep", queue: t.queue, handler: async (text: string) => text });
      const flow = defineWorkflow({
        name: "reports_later",
        queue: t.queue,
        handler: async (wf) => {
          const error = await wf.run(fails, "once", { queue: t.queue }).catch((thrown: Error) => thrown);
          await wf.run(keep, String(error.stack));
          t.note("kept");
          return wf.waitForSignal("go");
        },
      });
      const before = await t.serve([fails, keep, flow]);
      const run = await before.backend.submit(flow, null);
      await t.until("the stack to be kept", () => t.lines().includes("kept"));
      await before.worker.stop();
      await t.serve([fails, keep, flow]);
      await run.signal("go", "done");
      assert.equal(await run.output({ timeout: "30s" }), "done");
    },
    45_000,
  ),
  ...Object.entries(CHANGES).map(([what, { before: codeBefore, after: codeAfter, names }]) =>
    rule37(
      `NON_DETERMINISM says what differs: ${what}`,
      async (t) => {
        const make = (code: typeof codeBefore) =>
          defineWorkflow({
            name: `changed_${what}`,
            queue: t.queue,
            handler: async (wf) => {
              await code(wf, t.queue);
              t.note("there");
              return wf.waitForSignal("go");
            },
          });
        const before = await t.serve([increment, make(codeBefore)]);
        const run = await before.backend.submit(make(codeBefore), null);
        await t.until("the first call to be over", () => t.lines().includes("there"), 20_000);
        await before.worker.stop();
        await t.serve([increment, make(codeAfter)]);
        await run.signal("go");
        const error = await told(t, run);
        assert.equal(error.code, "NON_DETERMINISM");
        assert.match(`${error.message} ${JSON.stringify(error.cause)}`, names);
        await run.cancel();
        assert.equal((await settled(run)).status, "cancelled");
      },
      60_000,
    ),
  ),
  rule37("an AggregateError keeps the errors in it, of a task and of a workflow whose steps all failed", async (t) => {
    const any = async (): Promise<unknown> =>
      Promise.any([Promise.reject(new Error("database away")), Promise.reject(new Error("cache away"))]);
    const task = defineTask({ name: "fails_any", queue: t.queue, retry: { attempts: 1 }, handler: any });
    const flow = defineWorkflow({
      name: "flow_fails_any",
      queue: t.queue,
      handler: async (wf) => Promise.any(["database away", "cache away"].map((text) => wf.run(fails, text, { queue: t.queue }))),
    });
    const { backend } = await t.serve([task, flow, fails]);
    for (const one of [task, flow]) {
      const result = await settled(await backend.submit(one, null));
      assert.ok(result.status === "failed");
      assert.equal(result.error.name, "AggregateError");
      assert.deepEqual(result.error.errors?.map(({ message }) => message).sort(), ["cache away", "database away"]);
    }
  }),
  rule37("a cleanup that fails is the cause of the cancelled run, which stays cancelled", async (t) => {
    const first = defineTask({ name: "first", queue: t.queue, handler: async (_: null) => t.note("first") });
    const refund = defineTask({
      name: "refund",
      queue: t.queue,
      handler: async (_: null) => {
        throw new NonRetryableError("card closed", { code: "REFUND" });
      },
    });
    const flow = defineWorkflow({
      name: "cleanup_fails",
      queue: t.queue,
      handler: async (wf) => {
        try {
          await wf.run(first, null);
          await wf.sleep("1h");
        } finally {
          await wf.run(refund, null);
        }
      },
    });
    const { backend } = await t.serve([first, refund, flow]);
    const run = await backend.submit(flow, null);
    await t.until("the workflow to begin", () => t.lines().includes("first"));
    await run.cancel();
    await assert.rejects(run.output({ timeout: "20s" }), TaskCancelledError);
    const result = await run.result();
    assert.ok(result.status === "cancelled");
    assert.deepEqual(
      [result.error.code, result.error.cause?.code, result.error.cause?.message],
      ["TASK_CANCELLED", "REFUND", "card closed"],
    );
  }),
];
