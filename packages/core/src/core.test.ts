import { expect, test } from "vitest";
import { parseDuration } from "./values/duration.ts";
import { toErrorRecord } from "./values/error-record.ts";
import { InvalidArgumentError, NonRetryableError, TaskBackendError, TaskFailedError, TaskTimedOutError } from "./values/errors.ts";
import { executeTask } from "./work/execute-task.ts";
import { Interruption } from "./work/interruption.ts";
import { toJson, type Json } from "./values/json.ts";
import { silentLogger } from "./values/log.ts";
import { redactUrl } from "./config/redact.ts";
import { backoffMs, parseRetry } from "./define/retry.ts";
import { parseInput } from "./define/schema.ts";
import { defineTask } from "./define/task.ts";

test("durations: numbers, text with a unit, and what is refused", () => {
  expect([
    parseDuration(1.2, "x"),
    parseDuration("500ms", "x"),
    parseDuration("1.5s", "x"),
    parseDuration("2m", "x"),
    parseDuration("1h", "x"),
    parseDuration("7d", "x"),
  ]).toEqual([2, 500, 1_500, 120_000, 3_600_000, 604_800_000]);
  for (const bad of ["", "1", "1 s", "-1s", "soon", Number.NaN, -1, null] as never[])
    expect(() => parseDuration(bad, "The timeout")).toThrow(/^The timeout is .*"500ms"/);
});

test("backoff grows by its factor up to its cap, and jitter only adds, up to a quarter", () => {
  const policy = parseRetry({ attempts: 9, backoff: { delay: "1s", factor: 3, maxDelay: "10s", jitter: false } }, "x");
  expect([1, 2, 3, 4].map((attempt) => backoffMs(policy, attempt))).toEqual([1_000, 3_000, 9_000, 10_000]);
  const jittered = { ...policy, jitter: true };
  expect([0, 0.5, 1].map((random) => backoffMs(jittered, 1, () => random))).toEqual([1_000, 1_125, 1_250]);
  expect(parseRetry(undefined, "x")).toEqual({
    attempts: 3,
    type: "exponential",
    delayMs: 1_000,
    factor: 2,
    maxDelayMs: 60_000,
    jitter: true,
  });
  expect(() => parseRetry({ attempts: 0 }, "retry")).toThrow(/retry.attempts is 0/);
});

test("errors are recognised across copies of the package; a user's subclass is its own", async () => {
  const copy = (await import("../dist/index.js")) as {
    NonRetryableError: typeof NonRetryableError;
    TaskBackendError: typeof TaskBackendError;
  };
  const theirs = new copy.NonRetryableError("x");
  expect(Object.getPrototypeOf(theirs)).not.toBe(NonRetryableError.prototype);
  expect([theirs instanceof NonRetryableError, theirs instanceof TaskBackendError, theirs instanceof InvalidArgumentError]).toEqual([
    true,
    true,
    false,
  ]);
  class Mine extends NonRetryableError {}
  expect([new Mine("x") instanceof NonRetryableError, theirs instanceof Mine, new Mine("x") instanceof Mine]).toEqual([true, false, true]);
  expect(new TaskTimedOutError("t", "1", toErrorRecord("x"))).toBeInstanceOf(TaskFailedError);
});

test("whatever is thrown becomes a record", () => {
  expect(toErrorRecord("text")).toMatchObject({ name: "Error", message: "text", code: "TASK_FAILED", retryable: true });
  expect(toErrorRecord(undefined)).toMatchObject({ message: "undefined" });
  expect(toErrorRecord({ message: "like an error", code: "E1" })).toMatchObject({ message: "like an error", code: "E1" });
  expect(toErrorRecord(Object.assign(new Error("x"), { details: new Date() }))).not.toHaveProperty("details");
  const endless = new Error("a");
  endless.cause = endless;
  expect(JSON.stringify(toErrorRecord(endless)).length).toBeLessThan(100_000);
});

test("a record is JSON and of bounded size, whatever holds whatever", () => {
  const inner = Array.from({ length: 10 }, () => Object.assign(new Error("inner"), { details: "x".repeat(60_000) }));
  const wide = new AggregateError([new AggregateError(inner, "middle"), ...inner], "outer");
  expect(toErrorRecord(wide)).toMatchObject({ errors: { 0: { errors: { 0: { message: "inner", details: /^x/ } } } } });
  const itself = new AggregateError([], "itself");
  itself.errors = Array.from({ length: 10 }, () => itself);
  for (const error of [wide, itself]) expect(JSON.stringify(toErrorRecord(error)).length).toBeLessThan(300_000);
});

test("the record in a TaskFailedError is kept, and read as warily as any error", () => {
  const cause = {
    name: "E",
    message: "why",
    code: "C",
    retryable: false,
    step: "inner",
    errors: [{ name: "F", message: "one", code: "D", retryable: true }],
  };
  const failure = { name: "E", message: "m", code: "C", retryable: false, step: "b/c", stack: "E: m\n at x", cause, details: { n: 1 } };
  expect(toErrorRecord(new TaskFailedError("a", undefined, failure))).toEqual({ ...failure, step: "a/b/c" });
  expect(toErrorRecord(new Error("outer", { cause: new TaskFailedError("a", undefined, failure) })).cause).toMatchObject({
    step: "a/b/c",
    cause,
  });
  const changed = Object.assign({}, failure, { name: {}, details: 1n, extra: new Map() });
  changed.cause = changed as never;
  const failed = Object.assign(new TaskFailedError("a", undefined, changed as never), { task: 1n });
  const record = toErrorRecord(failed);
  expect(record).toMatchObject({ name: "Error", message: "m", step: "b/c" });
  expect(record).not.toHaveProperty("extra");
  expect(JSON.stringify(record).length).toBeLessThan(5_000);
});

test("a schema that answers what no schema does is told, and odd issues are read", async () => {
  const schemaOf = (result: unknown) => ({ "~standard": { version: 1 as const, vendor: "test", validate: () => result as never } });
  for (const result of [undefined, "no", { issues: 5 }])
    await expect(parseInput(schemaOf(result), 1, "x")).rejects.toMatchObject({ code: "INVALID_DEFINITION" });
  const issues = [{ path: [null, Symbol("s"), { key: 0 }, "a"] }, null];
  await expect(parseInput(schemaOf({ issues }), 1, "x")).rejects.toMatchObject({
    code: "INVALID_INPUT",
    issues: [
      { path: "$.null.Symbol(s).0.a", message: "does not fit" },
      { path: "$", message: "does not fit" },
    ],
  });
});

test("json: undefined properties go, and a copy is made that pollutes nothing", () => {
  expect(toJson(undefined, "x")).toBe(null);
  expect(toJson({ a: undefined, b: [1] }, "x")).toEqual({ b: [1] });
  const hostile = toJson(JSON.parse('{"__proto__": {"polluted": 1}}'), "x") as object;
  expect(Object.hasOwn(hostile, "__proto__")).toBe(true);
  expect(({} as { polluted?: number }).polluted).toBe(undefined);
  expect(() => toJson([undefined], "input")).toThrow("The input holds undefined in an array at $[0]");
  const broken = Object.defineProperty({}, "broken", { enumerable: true, get: () => expect.fail("a getter") });
  expect(() => toJson({ a: [broken] }, "input")).toThrow("The input holds what throws when it is read at $.a[0]");
  expect(() =>
    toJson(
      Array.from({ length: 2_000 }).reduce((inner) => [inner], 1 as unknown),
      "input",
    ),
  ).toThrow(/nesting deeper than 1000/);
});

test("URLs are shown without what may be secret", () => {
  expect(redactUrl("redis://user:secret@host:6379/0?token=secret#secret")).toBe("redis://host:6379/0");
  expect(redactUrl("not a url ://user:secret@host?secret")).not.toMatch(/secret/);
});

test("names that engines reserve are refused where the task is defined", () => {
  for (const name of ["", " padded", "a@1", "a,b", "new\nline", "x".repeat(201)]) {
    expect(() => defineTask({ name, handler: async () => 1 })).toThrow(/give 1 to 200 characters/);
  }
  expect(defineTask({ name: "Zürich: resize/é", handler: async () => 1 }).queue).toBe("default");
});

test("a handler does not begin when its run is another worker's by then", async () => {
  let began = 0;
  const task = defineTask({ name: "held", retry: { attempts: 3 }, handler: async () => ++began });
  const decide = (holds: (() => boolean | Promise<boolean>) | undefined, interruption = new Interruption()) =>
    executeTask(
      task,
      {
        id: "1",
        name: "held",
        queue: "default",
        attempt: 1,
        input: null,
        headers: {},
        interruption,
        progress: () => {},
        ...(holds && { holds }),
      },
      (value) => value as Json,
      silentLogger,
    );
  expect(await decide(() => false)).toEqual({ do: "release", delayMs: 0 });
  expect(await decide(async () => false)).toEqual({ do: "release", delayMs: 0 });
  const interruption = new Interruption();
  const cancelledMeanwhile = async (): Promise<boolean> => {
    interruption.abort("cancel");
    return true;
  };
  expect(await decide(cancelledMeanwhile, interruption)).toMatchObject({ do: "settle", status: "cancelled" });
  expect(began).toBe(0);
  for (const holds of [undefined, () => true, async () => true]) expect(await decide(holds)).toEqual({ do: "complete", output: began });
});
