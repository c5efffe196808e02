import assert from "node:assert/strict";
import {
  defineTask,
  defineWorkflow,
  InvalidArgumentError,
  InvalidInputError,
  InvalidPayloadError,
  PayloadTooLargeError,
  RunNotFoundError,
  taskRef,
  UnsupportedCapabilityError,
} from "@task-backend/core";
import { z } from "zod";
import { casesOf } from "../suite.ts";

const rule1 = casesOf(1);
const rule3 = casesOf(3);
const rule15 = casesOf(15);
const rule16 = casesOf(16);
const rule17 = casesOf(17);

const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

const doubled = defineTask({
  name: "doubled",
  input: z.object({ text: z.string().transform((text) => text + text) }),
  handler: async ({ text }, context) => {
    context.progress("the handler was called");
    return text;
  },
});

export const submitCases = [
  rule1("an accepted run is there for every other process, before any worker has existed", async (t) => {
    const producer = await t.backend();
    const run = await producer.submit(echo, { a: 1 }, { queue: t.queue });
    const other = await t.backend();
    const result = await other.getResult(run.id);
    assert.equal(result.status, "pending");
    assert.equal(result.name, "echo");
    assert.equal(result.queue, t.queue);
    assert.equal(result.attempts, 0);
    await other.cancel(run.id);
  }),
  rule1("what was submitted before the worker existed is run by it, with its output for every process", async (t) => {
    const producer = await t.backend();
    const run = await producer.submit(taskRef<{ n: number }, { n: number }>({ name: "echo", queue: t.queue }), { n: 7 });
    await t.serve([echo]);
    assert.deepEqual(await run.output({ timeout: "10s" }), { n: 7 });
    assert.deepEqual(await (await (await t.backend()).getRun(run.id)).output({ timeout: "10s" }), { n: 7 });
  }),
  rule1("submit by name reaches the task, and submitMany keeps its order", async (t) => {
    const { backend } = await t.serve([echo]);
    const runs = await backend.submitMany([1, 2, 3].map((input) => ({ task: "echo", input: input as never, options: { queue: t.queue } })));
    assert.deepEqual(await Promise.all(runs.map((run) => run.output({ timeout: "10s" }))), [1, 2, 3]);
  }),
  rule1(
    "a workflow submitted by name only is run by the worker that has it",
    async (t) => {
      const producer = await t.backend();
      const run = await producer.submit("by_name", 4, { queue: t.queue });
      const workflow = defineWorkflow({ name: "by_name", handler: async (wf, n: number) => wf.run(echo, n, { queue: t.queue }) });
      await t.serve([workflow, echo]);
      assert.equal(await run.output({ timeout: "10s" }), 4);
    },
    { needs: ["workflows"] },
  ),

  rule3("input that does not fit is refused at submit, naming the path, and never reaches the engine", async (t) => {
    const calls: string[] = [];
    const backend = await t.backend({ onCall: (method) => calls.push(method) });
    await assert.rejects(backend.submit(doubled, { text: 1 } as never, { queue: t.queue }), (error) => {
      assert.ok(error instanceof InvalidInputError);
      assert.equal(error.issues[0]?.path, "$.text");
      return true;
    });
    assert.deepEqual(calls, []);
  }),
  rule3("the worker parses again: a transform runs once, on the raw input", async (t) => {
    const { backend } = await t.serve([doubled]);
    assert.equal(await (await backend.submit(doubled, { text: "ab" }, { queue: t.queue })).output({ timeout: "10s" }), "abab");
  }),
  rule3("input that the worker refuses settles failed, INVALID_INPUT, without retry and without the handler", async (t) => {
    const { backend } = await t.serve([doubled]);
    const run = await (await t.backend()).submit("doubled", { text: 5 }, { queue: t.queue });
    await run.output({ timeout: "10s" }).catch(() => {});
    const result = await backend.getResult(run.id);
    assert.equal(result.status, "failed");
    assert.equal(result.error.code, "INVALID_INPUT");
    assert.equal(result.attempts, 1);
    assert.equal(result.progress, undefined);
  }),

  ...(["delay", "priority", "idempotency"] as const).map((feature) =>
    rule15(
      `${feature} is refused before any I/O where the engine lacks it`,
      async (t) => {
        const calls: string[] = [];
        const backend = await t.backend({ unsupported: [feature], onCall: (method) => calls.push(method) });
        const options = { delay: { delay: "1s" }, priority: { priority: "high" }, idempotency: { idempotencyKey: "k" } } as const;
        await assert.rejects(
          backend.submit(echo, 1, { queue: t.queue, ...options[feature] }),
          (error) => error instanceof UnsupportedCapabilityError && error.capability === feature,
        );
        assert.deepEqual(calls, []);
      },
      { shows: [feature] },
    ),
  ),
  rule15(
    "workflows, timeouts and retry policies are refused when the worker starts, where the engine lacks them",
    async (t) => {
      const backend = await t.backend({ unsupported: ["workflows", "timeout", "backoff"] });
      const workflow = defineWorkflow({ name: "refused", queue: t.queue, handler: async () => 1 });
      await assert.rejects(backend.submit(workflow, null), UnsupportedCapabilityError);
      backend.register(defineTask({ name: "timed", queue: t.queue, timeout: "1s", retry: { attempts: 1 }, handler: async () => 1 }));
      await assert.rejects(backend.startWorker(), (error) => error instanceof UnsupportedCapabilityError && error.capability === "timeout");
    },
    { shows: ["workflows", "timeout"] },
  ),
  rule15("a retention longer than the engine's is refused at connect", async (t) => {
    const { limits } = await t.capabilities();
    await assert.rejects(t.backend({}, { retention: limits.retentionMs + 1_000 }), UnsupportedCapabilityError);
  }),

  rule16(
    "payloads come back exactly as they went: in, out, and in headers",
    async (t) => {
      const { features } = await t.capabilities();
      const seen: unknown[] = [];
      const task = defineTask({
        name: "exact",
        handler: async (value: unknown, context) => {
          seen.push(context.headers);
          return value;
        },
      });
      const { backend } = await t.serve([task]);
      const deep = Array.from({ length: 100 }).reduce<unknown>((inner) => ({ inner: [inner] }), "bottom");
      const values: unknown[] = [
        null,
        "",
        0,
        -1.5e-300,
        Number.MAX_SAFE_INTEGER,
        "composed \u00e9 \u2260 combining e\u0301, 𝒳 👩‍👩‍👧 \u2028 \\u0000 'quotes\" `",
        [],
        {},
        { "": 1, "a.b": 2, $x: 3, ключ: 4 },
        JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1}'),
        deep,
        "x".repeat(1_000_000),
        ...(features.nullCharacters === "unsupported" ? [] : ["null \u0000 inside", { "k\u0000": "\u0000" }]),
        ...(features.loneSurrogates === "unsupported" ? [] : ["half \ud83d pair"]),
      ];
      const headers = { "x-trace": "1 é \\", empty: "" };
      const runs = await Promise.all(values.map((value) => backend.submit(task, value, { queue: t.queue, headers })));
      for (const [index, run] of runs.entries()) {
        const output = await run.output({ timeout: "10s" });
        assert.deepStrictEqual(output, values[index]);
        if (features.keyOrder !== "approximate") assert.equal(JSON.stringify(output), JSON.stringify(values[index]));
      }
      for (const value of seen) assert.deepStrictEqual(value, headers);
    },
    { shows: ["nullCharacters", "loneSurrogates", "keyOrder"] },
  ),
  rule16(
    "characters that the engine cannot hold are refused before I/O",
    async (t) => {
      const calls: string[] = [];
      const backend = await t.backend({ unsupported: ["nullCharacters", "loneSurrogates"], onCall: (method) => calls.push(method) });
      await assert.rejects(backend.submit(echo, { text: "\u0000" }, { queue: t.queue }), UnsupportedCapabilityError);
      await assert.rejects(backend.submit(echo, ["\ud83d"], { queue: t.queue }), UnsupportedCapabilityError);
      assert.deepEqual(calls, []);
      await (await backend.submit(echo, "\\u0000 👍", { queue: t.queue })).cancel();
    },
    { shows: ["nullCharacters", "loneSurrogates"] },
  ),
  rule16("what JSON cannot carry is refused, naming the path", async (t) => {
    const backend = await t.backend();
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    const bad: [unknown, string][] = [
      [{ a: [{ when: new Date() }] }, "$.a[0].when"],
      [{ n: 1n }, "$.n"],
      [[Number.NaN], "$[0]"],
      [{ "odd key": () => 1 }, '$["odd key"]'],
      [new Map(), "$"],
      [cycle, "$.self"],
    ];
    for (const [value, path] of bad) {
      await assert.rejects(
        backend.submit(echo, value, { queue: t.queue }),
        (error) => error instanceof InvalidPayloadError && error.path === path,
      );
    }
    const run = await backend.submit(echo, { kept: 1, dropped: undefined }, { queue: t.queue });
    await run.cancel();
  }),
  rule16("hostile payloads come back as they went, and change nothing", async (t) => {
    const { backend } = await t.serve([echo]);
    const deep = Array.from({ length: 990 }).reduce<unknown>((inner) => [inner], "bottom");
    const values: unknown[] = [
      JSON.parse(
        '{"a": {"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}, "toString": 1, "then": {"then": 1}}',
      ),
      Array.from({ length: 100_000 }, (_, n) => n),
      deep,
      Object.fromEntries(Array.from({ length: 2_000 }, (_, n) => [`key ${n}`, { n }])),
      { ["k".repeat(10_000)]: 1, "\ufeff": "\ufeff", "\uffff\ufdd0": "\u202e right to left", "\u0001\u001f\u007f": "\u0085" },
      "'; DROP TABLE runs; -- \\' \\\\ $$ $1 %s {{x}} ${1} \r\n\t <script>",
      { taskBackend: { status: "failed" }, value: 1, output: 2, error: { message: "no" }, length: 1e9, toJSON: "text" },
    ];
    const runs = await Promise.all(values.map((value) => backend.submit(echo, value, { queue: t.queue })));
    for (const [index, run] of runs.entries()) assert.deepStrictEqual(await run.output({ timeout: "15s" }), values[index]);
    assert.equal(({} as { polluted?: number }).polluted, undefined);
  }),
  rule16("headers over their limit, and headers that the engine cannot hold, are refused before I/O", async (t) => {
    const calls: string[] = [];
    const backend = await t.backend({ unsupported: ["nullCharacters"], onCall: (method) => calls.push(method) });
    const submit = (headers: Record<string, string>): Promise<unknown> => backend.submit(echo, 1, { queue: t.queue, headers });
    await assert.rejects(
      submit({ large: "x".repeat(20_000) }),
      (error) => error instanceof PayloadTooLargeError && error.maxBytes === 16_384,
    );
    await assert.rejects(submit({ null: "\u0000" }), UnsupportedCapabilityError);
    await assert.rejects(submit({ n: 1 as never }), InvalidArgumentError);
    assert.deepEqual(calls, []);
  }),
  rule16("a payload over the limit is refused before I/O, with both sizes", async (t) => {
    const { limits } = await t.capabilities();
    const calls: string[] = [];
    const backend = await t.backend({ onCall: (method) => calls.push(method) });
    await assert.rejects(
      backend.submit(echo, "x".repeat(limits.maxPayloadBytes), { queue: t.queue }),
      (error) => error instanceof PayloadTooLargeError && error.maxBytes === limits.maxPayloadBytes,
    );
    assert.deepEqual(calls, []);
  }),
  rule16("an output that is not JSON settles failed, INVALID_OUTPUT, without retry", async (t) => {
    const task = defineTask({ name: "bad_output", handler: async () => ({ at: new Date() }) });
    const { backend } = await t.serve([task]);
    const run = await backend.submit(task, null, { queue: t.queue });
    await run.output({ timeout: "10s" }).catch(() => {});
    const result = await run.result();
    assert.equal(result.status, "failed");
    assert.equal(result.error.code, "INVALID_OUTPUT");
    assert.match(result.error.message, /\$\.at/);
    assert.equal(result.attempts, 1);
  }),
  rule16("errors keep name, message, code, cause and details", async (t) => {
    const task = defineTask({
      name: "rich_error",
      retry: { attempts: 1 },
      handler: async () => {
        const error = new RangeError("too far ≠", { cause: new TypeError("inner") });
        throw Object.assign(error, { code: "E_FAR", details: { by: 3, list: ["é"] } });
      },
    });
    const { backend } = await t.serve([task]);
    const run = await backend.submit(task, null, { queue: t.queue });
    await run.output({ timeout: "10s" }).catch(() => {});
    const result = await run.result();
    assert.equal(result.status, "failed");
    const { name, message, code, cause, details, retryable } = result.error;
    assert.deepEqual(
      { name, message, code, details, retryable },
      { name: "RangeError", message: "too far ≠", code: "E_FAR", details: { by: 3, list: ["é"] }, retryable: true },
    );
    assert.equal(cause?.name, "TypeError");
    assert.equal(cause?.message, "inner");
  }),
  rule16(
    "progress is readable while the run goes on, and its last value stays",
    async (t) => {
      let finish = (): void => {};
      const task = defineTask({
        name: "progressing",
        handler: async (_: null, context) => {
          context.progress({ done: 1, text: "é" });
          await new Promise<void>((resolve) => (finish = resolve));
          context.progress({ done: 2 });
        },
      });
      const { backend } = await t.serve([task]);
      const run = await backend.submit(task, null, { queue: t.queue });
      await t.until("the progress to show", async () => JSON.stringify((await run.result()).progress) === '{"done":1,"text":"é"}');
      finish();
      assert.equal(await run.output({ timeout: "10s" }), null);
      assert.deepEqual((await run.result()).progress, { done: 2 });
    },
    { needs: ["progress"] },
  ),

  rule17("a settled run is readable for the retention and unknown after it", async (t) => {
    const { backend } = await t.serve([echo], {}, { retentionMs: 4_000 });
    const run = await backend.submit(echo, "kept", { queue: t.queue, idempotencyKey: "retained" });
    assert.equal(await run.output({ timeout: "10s" }), "kept");
    const result = await run.result();
    assert.equal(result.status, "completed");
    const finishedAt = result.finishedAt?.getTime() ?? 0;
    await t.until(
      "the retention to pass",
      async () => {
        const gone = await run.result().then(
          () => false,
          (error: unknown) => error instanceof RunNotFoundError,
        );
        if (gone) assert.ok(Date.now() - finishedAt >= 4_000, "forgotten too early");
        return gone;
      },
      10_000,
    );
    await assert.rejects(run.output({ timeout: "2s" }), RunNotFoundError);
    const again = await backend.submit(echo, "anew", { queue: t.queue, idempotencyKey: "retained" });
    assert.equal(again.deduplicated, false);
  }),
  rule17("unknown ids are told so by every call", async (t) => {
    const backend = await t.backend();
    const id = `no-such-run-${t.queue}`;
    const calls = [backend.getResult(id), backend.getRun(id), backend.cancel(id), backend.signal(id, "x")];
    await Promise.all(calls.map((call) => assert.rejects(call, RunNotFoundError)));
  }),
];
