import assert from "node:assert/strict";
import { defineTask, defineWorkflow, NonRetryableError, RetryableError, type Run } from "@task-backend/core";
import { casesOf, type ConformanceCase } from "../suite.ts";
import { increment, settled } from "./common.ts";

const rule31 = casesOf(31);

/** Errors with texts that a store may refuse, each with the beginning that is kept on every engine. */
const TEXTS: Readonly<Record<string, { readonly make: () => Error; readonly begins: string }>> = {
  null: { make: () => new Error("bad byte \u0000 here"), begins: "bad byte" },
  high: { make: () => new Error("half \ud83d"), begins: "half" },
  low: { make: () => new Error("half \ude00 of a pair"), begins: "half" },
  // An emoji is at each place where a long text may be cut.
  long: { make: () => new Error("😀".repeat(20_000)), begins: "😀😀" },
  shifted: { make: () => new Error(`x${"😀".repeat(20_000)}`), begins: "x😀" },
  name: { make: () => Object.assign(new Error("odd name"), { name: "Odd\u0000Error\ud83d" }), begins: "odd name" },
  code: { make: () => Object.assign(new Error("odd code"), { code: "E_\u0000_\ud83d" }), begins: "odd code" },
  stack: { make: () => Object.assign(new Error("odd stack"), { stack: "at \u0000 \ud83d" }), begins: "odd stack" },
  details: { make: () => Object.assign(new Error("odd details"), { details: { "k\u0000": ["\u0000", "\ud83d"] } }), begins: "odd details" },
  cause: { make: () => new Error("odd cause", { cause: new Error("inner \u0000 \ud83d") }), begins: "odd cause" },
  huge: { make: () => Object.assign(new Error("huge details"), { details: "x".repeat(3_000_000) }), begins: "huge details" },
};

const DELAYS: Readonly<Record<string, unknown>> = {
  huge: 1e19,
  negative: -1,
  infinite: Number.POSITIVE_INFINITY,
  nan: Number.NaN,
  text: "soon",
};

const next = async (run: Promise<Run<number>>): Promise<void> => assert.equal(await (await run).output({ timeout: "15s" }), 2);

/** Outputs that cannot be stored, each with the code of the refusal. */
const OUTPUTS: Readonly<Record<string, readonly [make: () => unknown, code: RegExp]>> = {
  date: [() => ({ at: new Date() }), /^INVALID_OUTPUT$/],
  bigint: [() => [1n], /^INVALID_OUTPUT$/],
  nan: [() => ({ n: Number.NaN }), /^INVALID_OUTPUT$/],
  throwing: [
    () => ({
      get broken(): never {
        throw new Error("a getter");
      },
    }),
    /./,
  ],
};

const workflows = { needs: ["workflows"], timeoutMs: 60_000 } as const satisfies Partial<ConformanceCase>;

export const refusalCases = [
  rule31(
    "an error settles its run whatever its text holds, and the next run completes",
    async (t) => {
      const task = defineTask({
        name: "odd_text",
        retry: { attempts: 1 },
        handler: async (which: string) => {
          throw TEXTS[which]?.make();
        },
      });
      const { backend } = await t.serve([task, increment], { concurrency: 2 });
      const names = Object.keys(TEXTS);
      const runs = await backend.submitMany(names.map((input) => ({ task, input, options: { queue: t.queue } })));
      for (const [index, run] of runs.entries()) {
        const which = names[index] as string;
        const result = await settled(run);
        assert.ok(result.status === "failed", `${which}: ${result.status}`);
        assert.ok(result.error.message.startsWith(TEXTS[which]?.begins as string), `${which}: ${result.error.message.slice(0, 100)}`);
        assert.equal(result.attempts, 1, which);
      }
      await next(backend.submit(increment, 1, { queue: t.queue }));
    },
    { timeoutMs: 60_000 },
  ),
  rule31(
    "so does the error of an attempt that is tried again, and of a workflow",
    async (t) => {
      const task = defineTask({
        name: "odd_text_once",
        retry: { attempts: 2, backoff: { type: "fixed", delay: 10, jitter: false } },
        handler: async (which: string, context) => {
          if (context.attempt === 1) throw TEXTS[which]?.make();
          return which;
        },
      });
      const flow = defineWorkflow({
        name: "odd_text_flow",
        queue: t.queue,
        handler: async (wf, which: string) => {
          await wf.run(task, which, { queue: t.queue });
          throw TEXTS[which]?.make();
        },
      });
      const { backend } = await t.serve([task, flow, increment]);
      for (const which of ["null", "high", "shifted", "cause"]) {
        const result = await settled(await backend.submit(flow, which));
        assert.ok(result.status === "failed", `${which}: ${result.status}`);
        assert.ok(result.error.message.startsWith(TEXTS[which]?.begins as string), `${which}: ${result.error.message.slice(0, 100)}`);
      }
      await next(backend.submit(increment, 1, { queue: t.queue }));
    },
    { ...workflows, needs: ["workflows", "backoff"] },
  ),
  rule31(
    "a retryAfter that no clock holds settles the run as INVALID_ARGUMENT",
    async (t) => {
      const task = defineTask({
        name: "odd_retry_after",
        retry: { attempts: 5 },
        handler: async (which: string) => {
          throw new RetryableError("busy", { retryAfter: DELAYS[which] as number });
        },
      });
      const { backend } = await t.serve([task, increment]);
      const runs = await backend.submitMany(Object.keys(DELAYS).map((input) => ({ task, input, options: { queue: t.queue } })));
      for (const run of runs) {
        const result = await settled(run);
        assert.ok(result.status === "failed", result.status);
        assert.equal(result.error.code, "INVALID_ARGUMENT");
        assert.match(JSON.stringify(result.error), /busy/, "what was thrown is lost");
      }
      await next(backend.submit(increment, 1, { queue: t.queue }));
    },
    { needs: ["retryAfter"] },
  ),
  rule31(
    "a sleep, or a timeout of a wait, that no clock holds fails the workflow as INVALID_ARGUMENT",
    async (t) => {
      const flow = defineWorkflow({
        name: "odd_sleep",
        queue: t.queue,
        handler: async (wf, which: string) => {
          const [call, delay] = which.split(":") as [string, string];
          await wf.run(increment, 1, { queue: t.queue });
          if (call === "sleep") await wf.sleep(DELAYS[delay] as number);
          else await wf.waitForSignal("never", { timeout: DELAYS[delay] as number });
        },
      });
      const { backend } = await t.serve([flow, increment]);
      for (const which of ["sleep:huge", "sleep:nan", "wait:huge", "wait:infinite", "wait:text"]) {
        const result = await settled(await backend.submit(flow, which));
        assert.ok(result.status === "failed", `${which}: ${result.status}`);
        assert.equal(result.error.code, "INVALID_ARGUMENT", which);
      }
    },
    workflows,
  ),
  rule31("an output that cannot be stored settles the run at once, and progress that cannot be is refused where it is given", async (t) => {
    const { features, limits } = await t.capabilities();
    const outputs: Record<string, readonly [make: () => unknown, code: RegExp]> = { ...OUTPUTS };
    if (features.nullCharacters === "unsupported") outputs["null"] = [() => "\u0000", /^UNSUPPORTED_CAPABILITY$/];
    if (features.loneSurrogates === "unsupported") outputs["half"] = [() => ["\ud83d"], /^UNSUPPORTED_CAPABILITY$/];
    if (limits.maxPayloadBytes <= 20_000_000) outputs["large"] = [() => "x".repeat(limits.maxPayloadBytes), /^PAYLOAD_TOO_LARGE$/];
    const task = defineTask({ name: "odd_output", handler: async (which: string) => outputs[which]?.[0]() });
    const progress = defineTask({
      name: "odd_progress",
      handler: async (_: null, context) => {
        const codes = [{ n: 1n }, new Date(), Number.NaN].map((value) => {
          try {
            context.progress(value);
            return "taken";
          } catch (error) {
            return (error as { code: string }).code;
          }
        });
        return codes;
      },
    });
    const { backend } = await t.serve([task, progress, increment], { concurrency: 2 });
    const names = Object.keys(outputs);
    const runs = await backend.submitMany(names.map((input) => ({ task, input, options: { queue: t.queue } })));
    for (const [index, run] of runs.entries()) {
      const which = names[index] as string;
      const result = await settled(run);
      assert.ok(result.status === "failed", `${which}: ${result.status}`);
      assert.match(result.error.code, outputs[which]?.[1] as RegExp, which);
      if (which !== "throwing") assert.equal(result.attempts, 1, which);
    }
    const told = await backend.submit(progress, null, { queue: t.queue });
    assert.deepEqual(await told.output({ timeout: "15s" }), ["INVALID_PAYLOAD", "INVALID_PAYLOAD", "INVALID_PAYLOAD"]);
    await next(backend.submit(increment, 1, { queue: t.queue }));
  }),
  rule31(
    "an input that a workflow gives to a step, or an output of its own, that cannot be stored fails it and nothing else",
    async (t) => {
      const flow = defineWorkflow({
        name: "odd_values",
        queue: t.queue,
        handler: async (wf, which: string) => {
          const [where, name] = which.split(":") as [string, string];
          const n = await wf.run(increment, 1, { queue: t.queue });
          const odd = OUTPUTS[name]?.[0]();
          return where === "input" ? wf.run(increment, odd as number, { queue: t.queue }) : ([n, odd] as unknown);
        },
      });
      const { backend } = await t.serve([flow, increment]);
      for (const [which, code] of [
        ["input:date", "INVALID_PAYLOAD"],
        ["input:bigint", "INVALID_PAYLOAD"],
        ["output:nan", "INVALID_OUTPUT"],
      ] as const) {
        const result = await settled(await backend.submit(flow, which));
        assert.ok(result.status === "failed", `${which}: ${result.status}`);
        assert.equal(result.error.code, code, which);
      }
      await next(backend.submit(increment, 1, { queue: t.queue }));
    },
    workflows,
  ),
  rule31("a final error settles at once, also one that is refused itself", async (t) => {
    const task = defineTask({
      name: "final_and_odd",
      handler: async () => {
        throw new NonRetryableError("no \u0000 use", { code: "E\u0000", details: { at: new Date(), n: 1n } });
      },
    });
    const { backend } = await t.serve([task]);
    const result = await settled(await backend.submit(task, null, { queue: t.queue }));
    assert.ok(result.status === "failed");
    assert.deepEqual([result.attempts, result.error.retryable], [1, false]);
  }),
];
