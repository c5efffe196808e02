import { describe, expect, test } from "vitest";
import type { Tick, TickResult } from "../port/port.ts";
import { createAdvance } from "../replay/advance.ts";
import { parseDuration } from "../values/duration.ts";
import { toJson } from "../values/json.ts";
import { silentLogger } from "../values/log.ts";
import { chain } from "./chain.ts";
import { nearest } from "./checks.ts";
import { dag } from "./dag.ts";
import { DefinitionSet } from "./definition-set.ts";
import { backoffMs, parseRetry } from "./retry.ts";
import { defineTask, taskRef } from "./task.ts";
import { defineWorkflow, type StepOptions, type WorkflowContext } from "./workflow.ts";

/** The first tick of a workflow with this function. */
function tickOf(handler: (wf: WorkflowContext) => unknown, tick: Partial<Tick> = {}): Promise<TickResult> {
  const definitions = new DefinitionSet();
  definitions.add(defineWorkflow({ name: "flow", handler }), "test");
  const { advance } = createAdvance({ definitions, check: (value, what) => toJson(value, what), log: silentLogger });
  const run = { id: "1", name: "flow", version: "1", queue: "default", input: null, headers: {}, startedAtMs: 0 };
  return advance({ ...run, entries: [], from: 0, seen: 0, commandsSeen: 0, retries: 0, ...tick });
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

describe("a step of a workflow", () => {
  const bad: [name: string, options: unknown][] = [
    ...badNames.map((queue): [string, unknown] => [`queue ${String(queue).slice(0, 20)}`, { queue }]),
    ...badHeaders.map((headers, index): [string, unknown] => [`headers ${index}`, { headers }]),
    ["an unknown option", { timeout: "1s" }],
    ["a priority that is none", { priority: "highest" }],
  ];
  test.each(bad)("with %s fails the run, naming the step", async (_name, options) => {
    const result = await tickOf((wf) => wf.run(task, anything(null), options as StepOptions));
    expect(result).toMatchObject({ do: "settle", status: "failed", error: { code: "INVALID_ARGUMENT", step: "task" } });
  });

  test("waits and sleeps are checked alike", async () => {
    for (const handler of [
      ...badKeys.map((name) => (wf: WorkflowContext) => wf.waitForSignal(anything(name))),
      (wf: WorkflowContext) => wf.waitForSignal("go", anything({ timout: "1s" })),
      (wf: WorkflowContext) => wf.waitForSignal("go", { timeout: 1e19 }),
      (wf: WorkflowContext) => wf.sleep(1e19),
    ]) {
      expect(await tickOf(handler)).toMatchObject({ do: "settle", status: "failed", error: { code: "INVALID_ARGUMENT" } });
    }
  });

  test("headers that grow beyond what may travel are refused", async () => {
    const headers = { workflow: "x".repeat(10_000) };
    const result = await tickOf((wf) => wf.run(task, anything(null), { headers: { step: "x".repeat(10_000) } }), {
      headers,
    });
    expect(result).toMatchObject({ do: "settle", error: { code: "PAYLOAD_TOO_LARGE" } });
  });

  test("its priority is that of the call, the definition, the workflow, in this order", async () => {
    const low = defineTask({ name: "low", priority: "low", handler: () => 1 });
    const handler = (wf: WorkflowContext) =>
      Promise.all([wf.run(task, anything(null)), wf.run(low, anything(null)), wf.run(low, anything(null), { priority: "high" })]);
    const priorities = async (tick: Partial<Tick>) => {
      const result = await tickOf(handler, tick);
      return result.do === "wait" && result.commands.map((command) => command.do === "run" && command.run.priority);
    };
    expect(await priorities({ priority: "urgent" })).toEqual(["urgent", "low", "high"]);
    expect(await priorities({})).toEqual(["normal", "low", "high"]);
  });
});

describe("definitions", () => {
  const handler = () => 1;
  const bad: [name: string, define: () => unknown, message: RegExp][] = [
    ["retries", () => defineTask(anything({ name: "t", handler, retries: 5 })), /"retries" \(did you mean "retry"\?\)/],
    ["retry: 5", () => defineTask(anything({ name: "t", handler, retry: 5 })), /retry is 5; give an object with attempts, backoff/],
    ["attempt", () => defineTask(anything({ name: "t", handler, retry: { attempt: 7 } })), /"attempt" \(did you mean "attempts"\?\)/],
    ["dely", () => defineTask(anything({ name: "t", handler, retry: { backoff: { dely: "1s" } } })), /retry.backoff has no option "dely"/],
    ["an empty priority", () => defineTask(anything({ name: "t", handler, priority: "" })), /priority is ""/],
    ["a null queue", () => defineTask(anything({ name: "t", handler, queue: null })), /queue is null/],
    ["no schema", () => defineTask(anything({ name: "t", handler, input: { type: "object" } })), /give a Standard Schema/],
    ["no handler", () => defineTask(anything({ name: "t" })), /has no handler/],
    ["no options", () => defineTask(anything(undefined)), /is undefined; give an object/],
    ["native", () => defineTask(anything({ name: "t", handler, native: "x" })), /native is "x"/],
    ["a workflow's retry", () => defineWorkflow(anything({ name: "w", handler, retry: {} })), /Workflow "w" has no option "retry"/],
    ["a ref's handler", () => taskRef(anything({ name: "r", handler })), /taskRef "r" has no option "handler"/],
    ["a chain's option", () => chain("c", [task], anything({ retry: {} })), /Chain "c": options has no option "retry"/],
    ["a chain's text beside a task", () => chain("c", anything([[task, "x"]])), /Step 1 of chain "c" has "x" beside its task/],
    ["a chain that is no list", () => chain("c", anything(task)), /give an array/],
    ["a dag's option", () => dag("d", { a: { task } }, anything({ versoin: "2" })), /did you mean "version"/],
    [
      "a node's key",
      () => dag("d", anything({ a: { task, afer: [] } })),
      /Node "a" of dag "d" has no option "afer" \(did you mean "after"\?\)/,
    ],
    ["a node's after", () => dag("d", anything({ a: { task }, b: { task, after: "a" } })), /after is "a"; give an array/],
    ["a node's input", () => dag("d", anything({ a: { task, input: { x: 1 } } })), /input is an object; give a function/],
  ];
  test.each(bad)("are refused for %s", (_name, define, message) => {
    expect(define).toThrow(message);
    expect(define).toThrow(expect.objectContaining({ code: expect.stringMatching(/^INVALID_(DEFINITION|ARGUMENT)$/) as string }));
  });

  test("a policy goes over what it names and leaves the rest; one of a workflow's retry is refused", () => {
    const slow = defineTask({ name: "slow", handler, retry: { backoff: { delay: "1h", type: "fixed", maxDelay: "2h" } }, timeout: "1m" });
    const definitions = new DefinitionSet({ slow: { retry: { attempts: 9 } }, flow: { timeout: "1m" } });
    definitions.add(slow, "test");
    expect(definitions.all).toMatchObject([
      { retry: { attempts: 9, type: "fixed", delayMs: 3_600_000, maxDelayMs: 7_200_000 }, timeoutMs: 60_000 },
    ]);
    expect(() => definitions.add(defineWorkflow({ name: "flow", handler }), "test")).toThrow(/has a timeout, and "flow" is a workflow/);
  });
});

test("a default never cuts what was given, and no backoff is out of bounds", () => {
  const policy = (backoff: object) => parseRetry({ backoff }, "retry");
  expect(policy({ delay: "1h" }).maxDelayMs).toBe(3_600_000);
  expect(policy({ delay: "1s" }).maxDelayMs).toBe(60_000);
  expect(policy({ delay: "1h", maxDelay: "1m" }).maxDelayMs).toBe(60_000);
  expect(backoffMs(policy({ delay: 0, factor: 1_000 }), 1_000_000)).toBe(0);
  for (const given of [{ delay: "36500d" }, { delay: "1s", factor: 1_000, maxDelay: "36500d" }]) {
    for (const attempt of [1, 2, 1_000_000_000]) expect(backoffMs(policy(given), attempt)).toBeLessThanOrEqual(36_525 * 86_400_000);
  }
  for (const factor of [0, 0.5, 1_001, Number.POSITIVE_INFINITY, Number.NaN, "2"])
    expect(() => policy({ factor })).toThrow(/from 1 to 1000/);
  expect(() => policy({ jitter: "no" })).toThrow(/give true or false/);
  for (const long of [1e19, Number.POSITIVE_INFINITY, "99999999d", "9".repeat(400) + "d"] as never[])
    expect(() => parseDuration(long, "The delay")).toThrow(/give at most 100 years/);
});

test("the nearest known word", () => {
  const known = ["name", "queue", "priority", "retry", "timeout", "handler"];
  expect(["retries", "prioirty", "Queue", "time", "time_out", "cron"].map((word) => nearest(word, known))).toEqual([
    "retry",
    "priority",
    "queue",
    "timeout",
    "timeout",
    undefined,
  ]);
});
