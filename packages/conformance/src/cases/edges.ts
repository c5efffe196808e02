import assert from "node:assert/strict";
import { inspect } from "node:util";
import {
  chain,
  ConfigurationError,
  dag,
  defineTask,
  defineWorkflow,
  taskRef,
  type TaskBackend,
  type WorkerOptions,
} from "@task-backend/core";
import { casesOf } from "../suite.ts";
import { increment, settled } from "./common.ts";

const rule32 = casesOf(32);
const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });
/** Turns off the types, because JavaScript and outside data can have any value. */
const anything = (value: unknown): never => value as never;

const BAD_NAMES: readonly unknown[] = ["", 42, null, "a,b", "q@workflows", " q", "q\n", "a\u0000b", "\ud83d", "x".repeat(300)];
const BAD_KEYS: readonly unknown[] = ["", 42, null, "a\u0000b", "half \udc00", "x".repeat(501)];
const BAD_HEADERS: readonly unknown[] = [null, "trace=1", ["a"], { n: 1n }, { n: null }, { "": "1" }, { "a\u0000": "1" }, { n: "\ud83d" }];

const show = (value: unknown): string => inspect(value).slice(0, 60);

/** Checks that each call rejects with the code, whatever it was given. */
async function refused(calls: Readonly<Record<string, () => unknown>>, code: RegExp = /^INVALID_ARGUMENT$/): Promise<void> {
  for (const [what, call] of Object.entries(calls)) {
    const seen = await Promise.resolve()
      .then(call)
      .then(
        () => "accepted",
        (error: unknown) => (error as { code?: string }).code ?? String(error),
      );
    assert.match(seen, code, `${what}: ${seen}`);
  }
}

/** One call for each value, under a name. */
function each(what: string, values: readonly unknown[], call: (value: never) => unknown): Record<string, () => unknown> {
  return Object.fromEntries(values.map((value) => [`${what} ${show(value)}`, () => call(value as never)]));
}

/** Invalid options of steps, by name, because JSON cannot hold all of them. */
const STEP_OPTIONS: Readonly<Record<string, unknown>> = {
  "an empty queue": { queue: "" },
  "a queue that is a number": { queue: 42 },
  "a queue of two": { queue: "a,b" },
  "a header that is a bigint": { headers: { n: 1n } },
  "headers null": { headers: null },
  "an unknown option": { retries: 5 },
  "an unknown priority": { priority: "highest" },
};

export const edgeCases = [
  rule32(
    "a submission with a bad queue, key, header or option is refused before any I/O, by definition, by name and by reference",
    async (t) => {
      const calls: string[] = [];
      const backend = await t.backend({ onCall: (method) => calls.push(method) });
      for (const task of [echo, "echo", taskRef({ name: "echo" })] as (typeof echo)[]) {
        const submit = (options: object): unknown => backend.submit(task, null, { queue: t.queue, ...options });
        await refused({
          ...each("queue", BAD_NAMES, (queue) => submit({ queue })),
          ...each("idempotencyKey", BAD_KEYS, (idempotencyKey) => submit({ idempotencyKey })),
          ...each("headers", BAD_HEADERS, (headers) => submit({ headers })),
          ...each("priority", ["", "highest", 3, null], (priority) => submit({ priority })),
          ...each("delay", ["soon", -1, Number.NaN, 1e19, null], (delay) => submit({ delay })),
          ...each("runAt", ["tomorrow", new Date(Number.NaN), 5], (runAt) => submit({ runAt })),
          "an unknown option": () => submit({ dely: "1s" }),
        });
      }
      await refused(each("name", BAD_NAMES, (name) => backend.submit(name, null, { queue: t.queue })));
      assert.deepEqual(calls, []);
    },
  ),
  rule32("submitMany sends nothing when one of its items is refused, the first or the last", async (t) => {
    const calls: string[] = [];
    const backend = await t.backend({ onCall: (method) => calls.push(method) });
    const good = { task: echo, input: 1, options: { queue: t.queue } };
    const bad: Record<string, unknown> = {
      queue: { ...good, options: { queue: "" } },
      key: { ...good, options: { queue: t.queue, idempotencyKey: "a\u0000" } },
      headers: { ...good, options: { queue: t.queue, headers: { n: 1n } } },
      option: { ...good, options: { queue: t.queue, retries: 1 } },
      task: { ...good, task: {} },
    };
    for (const [what, item] of Object.entries(bad)) {
      await refused({
        [`${what} last`]: () => backend.submitMany([good, good, item] as never),
        [`${what} first`]: () => backend.submitMany([item, good, good] as never),
      });
    }
    await refused({ payload: () => backend.submitMany([good, { ...good, input: 1n }] as never) }, /^INVALID_PAYLOAD$/);
    assert.deepEqual(calls, []);
  }),
  rule32("a signal's name and dedupeId, the options of a wait and of a worker are checked alike", async (t) => {
    const calls: string[] = [];
    const backend = await t.backend({ onCall: (method) => calls.push(method) });
    const run = await backend.submit(echo, null, { queue: `${t.queue}-nobody` });
    calls.length = 0;
    const startWorker = (options: object): unknown => backend.startWorker({ queues: [t.queue], ...options });
    await refused({
      ...each("signal", BAD_KEYS, (name) => run.signal(name)),
      ...each("dedupeId", BAD_KEYS, (dedupeId) => run.signal("go", null, { dedupeId })),
      "an unknown option of signal": () => run.signal("go", null, anything({ dedupe: "1" })),
      "an unknown option of output": () => run.output(anything({ timout: "1s" })),
      ...each("timeout", ["soon", -1, 1e19, Number.NaN], (timeout) => run.output({ timeout })),
      ...each("queues", BAD_NAMES, (queue) => startWorker({ queues: [t.queue, queue] })),
      ...each("concurrency", [0, 1.5, "many", Number.NaN], (concurrency) => startWorker({ concurrency })),
      ...each("grace", ["long", -1, 1e19], (grace) => startWorker({ grace })),
      "an unknown option of a worker": () => startWorker({ concurency: 1 }),
      "an unknown option of a backend": () => t.backend({}, anything({ retentoin: "1d" })),
    });
    assert.deepEqual(calls, []);
    await run.cancel();
  }),
  rule32("definitions take the same names as submissions, and no unknown option", async () => {
    const handler = (): number => 1;
    await refused(
      {
        ...each("task name", BAD_NAMES, (name) => defineTask({ name, handler })),
        ...each("task queue", BAD_NAMES, (queue) => defineTask({ name: "t", queue, handler })),
        ...each("workflow name", BAD_NAMES, (name) => defineWorkflow({ name, handler })),
        ...each("workflow version", BAD_NAMES, (version) => defineWorkflow({ name: "w", version, handler })),
        ...each("ref", BAD_NAMES, (name) => taskRef({ name })),
        ...each("ref queue", BAD_NAMES, (queue) => taskRef({ name: "r", queue })),
        ...each("chain queue", BAD_NAMES, (queue) => chain("c", [echo], { queue })),
        ...each("dag queue", BAD_NAMES, (queue) => dag("d", { a: { task: echo } }, { queue })),
        retries: () => defineTask(anything({ name: "t", handler, retries: 5 })),
        "retry: 5": () => defineTask(anything({ name: "t", handler, retry: 5 })),
        attempt: () => defineTask(anything({ name: "t", handler, retry: { attempt: 7 } })),
        "backoff.dely": () => defineTask(anything({ name: "t", handler, retry: { backoff: { dely: "1s" } } })),
        "a workflow's retry": () => defineWorkflow(anything({ name: "w", handler, retry: {} })),
        "a node's afer": () => dag("d", anything({ a: { task: echo, afer: [] } })),
      },
      /^INVALID_(ARGUMENT|DEFINITION)$/,
    );
  }),
  rule32(
    "a step with bad options fails its workflow, which neither hangs nor can not be cancelled",
    async (t) => {
      const flow = defineWorkflow({
        name: "bad_steps",
        queue: t.queue,
        handler: async (wf, which: string) => wf.run(increment, 1, { queue: t.queue, ...(STEP_OPTIONS[which] as object) }),
      });
      const { backend } = await t.serve([flow, increment]);
      const names = Object.keys(STEP_OPTIONS);
      const runs = await backend.submitMany(names.map((input) => ({ task: flow, input })));
      for (const [index, run] of runs.entries()) {
        const result = await settled(run);
        assert.ok(result.status === "failed", `${names[index]}: ${result.status}`);
        assert.equal(result.error.code, "INVALID_ARGUMENT", names[index]);
      }
    },
    { needs: ["workflows"], timeoutMs: 40_000 },
  ),
  rule32(
    "names that are odd and allowed lead to what they name, and nothing else",
    async (t) => {
      const queues = [`${t.queue}: Zürich/1 é`, `${t.queue}#?%{x}*[y] "z"`, `${t.queue}.CASE`, `${t.queue}.case`];
      const names = ["Odd: name/1 é 🦊", "odd.CASE", "__proto__", "constructor", "x".repeat(150)];
      const tasks = names.map((name) => defineTask({ name, handler: async (queue: string, context) => [name, queue, context.queue] }));
      const { backend } = await t.serve(tasks, { queues });
      const pairs = [
        ...names.map((name, index) => [name, queues[index % queues.length] as string] as const),
        ["odd.CASE", queues[3] as string] as const,
      ];
      const runs = await backend.submitMany(pairs.map(([name, queue]) => ({ task: name, input: queue as never, options: { queue } })));
      for (const [index, run] of runs.entries()) {
        const [name, queue] = pairs[index] as readonly [string, string];
        assert.deepEqual(await run.output({ timeout: "15s" }), [name, queue, queue]);
        const result = await run.result();
        assert.deepEqual([result.name, result.queue], [name, queue]);
      }
    },
    { timeoutMs: 40_000 },
  ),
  rule32("names that differ in their case only are two, or refused where a worker would have both", async (t) => {
    const tasks = ["cased", "Cased"].map((name) => defineTask({ name, handler: async () => name }));
    const backend = await t.backend();
    const refusal = await backend
      .register(...tasks)
      .startWorker({ queues: [t.queue] })
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    if (refusal !== undefined) {
      assert.ok(refusal instanceof ConfigurationError && refusal.message.includes("Cased"), inspect(refusal));
      return;
    }
    const runs = await backend.submitMany(tasks.map((task) => ({ task, input: null as never, options: { queue: t.queue } })));
    assert.deepEqual(await Promise.all(runs.map((run) => run.output({ timeout: "15s" }))), ["cased", "Cased"]);
  }),
  rule32(
    "keys that are odd and allowed are told apart",
    async (t) => {
      const keys = ["Key", "key", " key", "key ", "a:b", "a/b", "línea\n🦊", "'; --", "__proto__", "0", "x".repeat(500)];
      const { backend } = await t.serve([echo]);
      const runs = await backend.submitMany(
        keys.map((idempotencyKey) => ({ task: echo, input: idempotencyKey, options: { queue: t.queue, idempotencyKey } })),
      );
      assert.equal(new Set(runs.map((run) => run.id)).size, keys.length);
      for (const [index, run] of runs.entries()) assert.equal(await run.output({ timeout: "15s" }), keys[index]);
      const again = await backend.submit(echo, "again", { queue: t.queue, idempotencyKey: "línea\n🦊" });
      assert.deepEqual([again.deduplicated, await again.output({ timeout: "15s" })], [true, "línea\n🦊"]);
    },
    { needs: ["idempotency"], timeoutMs: 40_000 },
  ),
  rule32(
    "signals whose names are odd and allowed reach the waits for them",
    async (t) => {
      const names = ["Go", "go", " go", "go:1", "__proto__", "línea\n🦊", "x".repeat(500)];
      const flow = defineWorkflow({
        name: "odd_signals",
        queue: t.queue,
        handler: async (wf) => Promise.all(names.map((name) => wf.waitForSignal(name))),
      });
      const { backend } = await t.serve([flow]);
      const run = await backend.submit(flow, null);
      for (const name of names.toReversed()) await run.signal(name, `for ${name}`, { dedupeId: `one ${name.slice(0, 100)}` });
      assert.deepEqual(
        await run.output({ timeout: "15s" }),
        names.map((name) => `for ${name}`),
      );
    },
    { needs: ["workflows"], timeoutMs: 40_000 },
  ),
  rule32(
    "a default never cuts what was given: a backoff of an hour is an hour",
    async (t) => {
      const delays: Record<string, number | undefined> = {};
      const retries = {
        fixed: { attempts: 2, backoff: { type: "fixed", delay: "1h", jitter: false } },
        exponential: { attempts: 2, backoff: { delay: "1h", factor: 3, jitter: false } },
      } as const;
      const tasks = Object.entries(retries).map(([name, retry]) =>
        defineTask({ name: `backoff_${name}`, retry, handler: async (_: null) => Promise.reject(new Error("again")) }),
      );
      const onAttempt: WorkerOptions["onAttempt"] = ({ name, delayMs }) => void (delays[name] = delayMs);
      const { backend } = await t.serve(tasks, { onAttempt });
      const runs = await backend.submitMany(tasks.map((task) => ({ task, input: null, options: { queue: t.queue } })));
      await t.until("both to wait for their next attempt", () => Object.keys(delays).length === 2);
      assert.deepEqual(delays, { backoff_fixed: 3_600_000, backoff_exponential: 3_600_000 });
      await Promise.all(runs.map((run) => run.cancel()));
    },
    { needs: ["backoff"] },
  ),
  rule32(
    "a reference without a queue leads to the definition's own, as a step and as a submission",
    async (t) => {
      const there = defineTask({ name: "there", queue: `${t.queue}-there`, handler: async (n: number) => n + 1 });
      const ref = taskRef<number, number>({ name: "there" });
      const flow = defineWorkflow({ name: "refers", queue: t.queue, handler: async (wf, n: number) => wf.run(ref, n) });
      const { backend }: { backend: TaskBackend } = await t.serve([there, flow], { queues: [t.queue, `${t.queue}-there`] });
      assert.equal(await (await backend.submit(ref, 1)).output({ timeout: "15s" }), 2);
      assert.equal(await (await backend.submit(flow, 2)).output({ timeout: "15s" }), 3);
    },
    { needs: ["workflows"] },
  ),
];
