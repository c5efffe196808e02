import {
  createBackend,
  defineTask,
  defineWorkflow,
  silentLogger,
  taskRef,
  type BackendOptions,
  type Logger,
  type SubmitOptions,
  type TaskBackend,
} from "@task-backend/core";
import type { RunRequest, SignalRequest } from "@task-backend/core/adapter";
import { sqlite } from "@task-backend/sqlite";
import { afterEach, describe, expect, test } from "vitest";

/** The requests that reached the engine: a refused one must not be among them. */
const submitted: RunRequest[] = [];
const signals: SignalRequest[] = [];
const open: TaskBackend[] = [];

afterEach(async () => {
  submitted.length = signals.length = 0;
  await Promise.all(open.splice(0).map((backend) => backend.close()));
});

function watched() {
  const adapter = sqlite({ file: ":memory:" });
  const [submit, signal] = [adapter.submit.bind(adapter), adapter.signal.bind(adapter)];
  adapter.submit = (runs) => {
    submitted.push(...runs);
    return submit(runs);
  };
  adapter.signal = (id, request) => {
    signals.push(request);
    return signal(id, request);
  };
  return adapter;
}

async function connect(options: BackendOptions = {}): Promise<TaskBackend> {
  const backend = await createBackend(watched(), { log: silentLogger, ...options });
  open.push(backend);
  return backend;
}

const task = defineTask({ name: "task", handler: () => 1 });
const anything = (value: unknown) => value as never;

const badNames = ["", 42, null, " q", "q ", "a,b", "q@workflows", "a\u0000b", "\ud83d", "x".repeat(201)];
const badKeys = ["", 42, null, "a\u0000b", "\udc00 half", "x".repeat(501)];
const badHeaders: unknown[] = [
  null,
  "trace=1",
  ["trace"],
  new Map([["trace", "1"]]),
  { trace: 1n },
  { trace: null },
  { trace: "\ud83d" },
  { "": "empty name" },
  { "a\u0000b": "1" },
  { ["x".repeat(201)]: "1" },
];

describe("submit", () => {
  const bad: [name: string, options: unknown][] = [
    ...badNames.map((queue): [string, unknown] => [`queue ${String(queue).slice(0, 20)}`, { queue }]),
    ...badKeys.map((idempotencyKey): [string, unknown] => [`key ${String(idempotencyKey).slice(0, 20)}`, { idempotencyKey }]),
    ...badHeaders.map((headers, index): [string, unknown] => [`headers ${index}`, { headers }]),
    ["an unknown option", { queu: "a" }],
    ["no object", "high"],
    ["null", null],
    ["a priority of null", { priority: null }],
    ["a delay beyond a lifetime", { delay: 1e19 }],
    ["a runAt at the end of time", { runAt: new Date(8.64e15) }],
    ["native options of no engine", { native: "fast" }],
  ];
  test.each(bad)("refuses %s, alone and among others, by definition, by name and by reference", async (_name, options) => {
    const backend = await connect();
    for (const target of [task, "task", taskRef({ name: "task" })] as (typeof task)[]) {
      await expect(backend.submit(target, null, options as SubmitOptions)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
      const items = [
        { task: target, input: null as never },
        { task: target, input: null as never, options: options as SubmitOptions },
      ];
      await expect(backend.submitMany(items)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    }
    expect(submitted).toEqual([]);
  });

  test("refuses names that no definition could have, and items of another form", async () => {
    const backend = await connect();
    for (const name of badNames) await expect(backend.submit(anything(name), null)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(backend.submitMany(anything([{ task, input: null, priority: "high" }]))).rejects.toThrow(
      /Item 0 of submitMany has no option "priority".*task, input, options/,
    );
    await expect(backend.submitMany(anything(task))).rejects.toThrow(/give an array/);
    expect(submitted).toEqual([]);
  });

  test("takes what is odd and possible", async () => {
    const backend = await connect();
    const headers = { "x trace": "", emoji: "🦊" };
    await backend.submit(task, null, { queue: "Zürich: 1/é", idempotencyKey: "line\nline 🦊", headers, delay: "36500d", native: {} });
    expect(submitted).toMatchObject([{ queue: "Zürich: 1/é", idempotencyKey: "line\nline 🦊", headers }]);
  });
});

test("signal, output, worker, stop and backend refuse what they do not know", async () => {
  const backend = await connect();
  const run = await backend.submit(task, null);
  const calls: (() => Promise<unknown>)[] = [
    ...badKeys.map((name) => () => run.signal(anything(name))),
    ...badKeys.map((dedupeId) => () => run.signal("go", null, { dedupeId: anything(dedupeId) })),
    () => run.signal("go", null, anything({ dedupe: "1" })),
    () => run.output(anything({ timout: "1s" })),
    () => run.output({ timeout: 1e19 }),
    () => run.output({ signal: anything({}) }),
    ...badNames.map((queue) => () => backend.startWorker({ queues: [anything(queue)] })),
    () => backend.startWorker({ queues: anything("a,b") }),
    () => backend.startWorker(anything({ concurency: 1 })),
    () => backend.startWorker({ queues: ["a"], onAttempt: anything("log") }),
    async () => (await backend.startWorker({ queues: ["a"] })).stop(anything({ graceMs: 1 })),
    () => createBackend(watched(), anything({ retentoin: "1d" })),
    () => createBackend(watched(), { log: anything({ info: () => {} }) }),
    () => createBackend(watched(), { tasks: { task: anything({ retries: 5 }) } }),
    () => createBackend(watched(), { tasks: { task: { queue: "a,b" } } }),
    () => createBackend(watched(), { tasks: { task: { retry: { attempts: 0 } } } }),
  ];
  for (const [index, call] of calls.entries()) await expect(call(), String(index)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  expect(signals).toEqual([]);
  await expect(createBackend(watched(), anything({ retentoin: "1d" }))).rejects.toThrow(
    /"retentoin" \(did you mean "retention"\?\); the options are log,/,
  );
});

test("a ref without a queue becomes the definition of its name, with the operator's policy over it", async () => {
  const files = defineTask({ name: "files", queue: "files", priority: "high", handler: () => 1 });
  const targetOf = async (ref: ReturnType<typeof taskRef>, options?: BackendOptions) => {
    const backend = await connect(options);
    await backend.register(files).submit(ref, null);
    const { queue, priority, definition } = submitted.at(-1) as RunRequest;
    return [queue, priority, definition !== undefined];
  };
  expect(await targetOf(taskRef({ name: "files" }))).toEqual(["files", "high", true]);
  expect(await targetOf(taskRef({ name: "files", priority: "low" }))).toEqual(["files", "low", true]);
  expect(await targetOf(taskRef({ name: "files", queue: "elsewhere" }))).toEqual(["elsewhere", "normal", false]);
  expect(await targetOf(taskRef({ name: "nobody's" }))).toEqual(["default", "normal", false]);
  expect(await targetOf(taskRef({ name: "files" }), { tasks: { files: { queue: "slow" } } })).toEqual(["slow", "high", true]);
  expect(await targetOf(taskRef({ name: "files", queue: "elsewhere" }), { tasks: { files: { queue: "slow" } } })).toEqual([
    "slow",
    "normal",
    false,
  ]);
});

test("so it does as a step, where the worker of the workflow has the definition", async () => {
  const files = defineTask({ name: "files", queue: "files", handler: (_: unknown, context) => context.queue });
  const flow = defineWorkflow({ name: "flow", queue: "files", handler: (wf) => wf.run(taskRef({ name: "files" }), null) });
  const backend = await connect();
  await backend.register(files, flow).startWorker({ queues: ["files"] });
  expect(await (await backend.submit(flow, null)).output({ timeout: "10s" })).toBe("files");
});

test("a policy for a task that is not there is told, with the name that may have been meant", async () => {
  const told: string[] = [];
  const at = (level: string) => (message: string) => void told.push(`${level}: ${message}`);
  const log: Logger = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  const backend = await connect({ log, tasks: { taks: { timeout: "1m" }, elsewhere: { timeout: "1m" }, task: {} } });
  await backend.register(task).startWorker();
  expect(told).toEqual([
    'warn: This worker has no task "taks", for which a policy is configured; did you mean "task"?',
    'info: This worker has no task "elsewhere", for which a policy is configured',
  ]);
});
