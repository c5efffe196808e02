import { defineTask, defineWorkflow, TaskFailedError } from "@task-backend/core";
import { appendFileSync } from "node:fs";

/*
 * Tasks and workflows whose code leaves things behind: promises that nobody handles, callbacks that throw, values that cannot be printed.
 * They run in separate processes, because their errors end a process that is not guarded.
 */

interface Effect {
  readonly file: string;
  readonly queue: string;
}

/** Values to throw, or to reject a promise with, by name. Some of them throw when they are inspected. */
export const ODD_VALUES: Readonly<Record<string, () => unknown>> = {
  undefined: () => undefined,
  null: () => null,
  symbol: () => Symbol("odd"),
  bigint: () => 10n,
  function: () => () => "odd",
  nullPrototype: () => Object.create(null) as unknown,
  throwingGetters: () =>
    Object.defineProperties(
      new Error("never read"),
      Object.fromEntries(["stack", "name", "message", "cause", "code", "details", "toString"].map((key) => [key, { get: explode }])),
    ),
  revokedProxy: () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  throwingProxy: () => new Proxy(new Error("behind a proxy"), { get: explode, getPrototypeOf: explode, has: explode, ownKeys: explode }),
  causedByItself: () => {
    const error = new Error("caused by itself");
    return Object.assign(error, { cause: error });
  },
  aggregate: () => new AggregateError([Symbol("inner"), Object.create(null), undefined], "several"),
  /** Ten of itself, five levels deep, would be a hundred thousand. */
  aggregateOfItself: () => {
    const error = new AggregateError([], "several of itself");
    return Object.assign(error, { errors: Array.from({ length: 10 }, () => error) });
  },
  /** As code that adds to what a step failed with leaves it: no JSON, and a cycle. */
  changedFailure: () => {
    const failure = { name: "Error", message: "changed", code: "CHANGED", retryable: false, details: { at: new Date(), n: 1n } };
    return new TaskFailedError("step", undefined, Object.assign(failure, { cause: failure }) as never);
  },
  wrongTypes: () => Object.assign(new Error("wrong types"), { name: 5, code: {}, stack: [], details: () => 1 }),
};

function explode(): never {
  throw new Error("it must not be looked at");
}

/** Ways in which a handler leaves something behind. The handler completes, unless a callback throws while it runs. */
export const WAYS_TO_FORGET: Readonly<Record<string, () => void>> = {
  error: () => void Promise.reject(new Error("forgotten")),
  ...Object.fromEntries(Object.entries(ODD_VALUES).map(([name, make]) => [name, () => void Promise.reject(make())])),
  later: () => void setTimeout(() => void Promise.reject(new Error("forgotten later")), 300),
  afterwards: () => void setTimeout(() => throwNow("after its attempt"), 600),
};

function throwNow(when: string): never {
  throw new Error(`thrown in a timer, ${when}`);
}

/** Leaves something behind, and completes. */
export const forgets = defineTask({
  name: "conformance_forgets",
  retry: { attempts: 1 },
  handler: async ({ way }: { way: string }) => {
    WAYS_TO_FORGET[way]?.();
    await new Promise((resolve) => setTimeout(resolve, 100));
    return way;
  },
});

/** Waits for ever in its first attempt, while a callback of it throws. */
export const explodes = defineTask({
  name: "conformance_explodes",
  retry: { attempts: 2, backoff: { type: "fixed", delay: 20, jitter: false } },
  handler: async (_: null, context) => {
    if (context.attempt > 1) return context.attempt;
    setTimeout(() => throwNow("while it runs"), 50);
    return new Promise<number>(() => {});
  },
});

/** Starts two steps at once and awaits one after the other: the second rejects before it is awaited. */
export const jobs = defineWorkflow({
  name: "conformance_jobs",
  handler: async (workflow, { file, queue, fails }: Effect & { fails: boolean }) => {
    const started = [1, 2].map(async (n) => {
      await workflow.run(fails ? refuses : hangs, { file, queue }, { queue });
      return n;
    });
    const outputs: number[] = [];
    for (const job of started) outputs.push(await job);
    return outputs;
  },
});

/** Leaves a promise behind before each of two steps. */
export const forgetfulFlow = defineWorkflow({
  name: "conformance_forgetful_flow",
  handler: async (workflow, { queue, way }: { queue: string; way: string }) => {
    WAYS_TO_FORGET[way]?.();
    await workflow.run(forgets, { way }, { queue });
    WAYS_TO_FORGET[way]?.();
    return workflow.run(forgets, { way }, { queue });
  },
});

const refuses = defineTask({
  name: "conformance_refuses",
  retry: { attempts: 1 },
  handler: async (_: Effect) => Promise.reject(new Error("refused")),
});

const hangs = defineTask({
  name: "conformance_hangs",
  handler: async ({ file }: Effect, context) => {
    appendFileSync(file, `hangs ${context.attempt} ${process.pid}\n`);
    return new Promise((resolve) => context.signal.addEventListener("abort", () => resolve(null)));
  },
});

export { hangs, refuses };
