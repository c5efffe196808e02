import { appendFileSync } from "node:fs";
import { defineTask, defineWorkflow } from "@task-backend/core";

/*
 * The tasks and workflows of the suite's worker processes. Side effects go to a file, one line each, so that the suite sees the
 * effects of processes that it killed.
 */

export * from "./fixtures-forgetful.ts";

/** The duration of a race's loser: it loses even on a slow machine, or if its rival's worker is lost. The workflow's end cancels it. */
export const LOSES_MS = 120_000;

interface Effect {
  readonly file: string;
  readonly line: string;
}

/** Writes its line, waits, and returns the line. */
export const record = defineTask({
  name: "conformance_record",
  // There are more attempts than killed workers: engines count lost starts in different ways.
  retry: { attempts: 20, backoff: { delay: 20, jitter: false } },
  handler: async ({ file, line, waitMs = 0 }: Effect & { waitMs?: number }, context) => {
    appendFileSync(file, `${line} ${context.attempt} ${process.pid}\n`);
    if (waitMs > 0) await pause(waitMs, context.signal);
    return line;
  },
});

/** Writes a line when it starts, and another when it is aborted or done. */
export const block = defineTask({
  name: "conformance_block",
  handler: async ({ file, line, waitMs }: Effect & { waitMs: number }, context) => {
    appendFileSync(file, `${line} start ${context.attempt} ${process.pid}\n`);
    try {
      await pause(waitMs, context.signal);
    } catch (error) {
      appendFileSync(file, `${line} ${(error as Error).name} ${context.attempt} ${process.pid}\n`);
      throw error;
    }
    appendFileSync(file, `${line} end ${context.attempt} ${process.pid}\n`);
    return `${line} ${process.pid}`;
  },
});

/** Kills its worker. */
export const die = defineTask({
  name: "conformance_die",
  retry: { attempts: 2 },
  handler: async ({ file, line }: Effect) => {
    appendFileSync(file, `${line}\n`);
    process.kill(process.pid, "SIGKILL");
    await new Promise(() => {});
  },
});

/** Fails with a long backoff, then succeeds. */
export const failOnce = defineTask({
  name: "conformance_fail_once",
  retry: { attempts: 3, backoff: { type: "fixed", delay: 1_500, jitter: false } },
  handler: async ({ file, line }: Effect, context) => {
    appendFileSync(file, `${line} ${context.attempt} ${Date.now()}\n`);
    if (context.attempt === 1) throw new Error("the first time");
    return context.attempt;
  },
});

/** Branches of two steps whose durations are inverted, a race with losers, and a sleep. */
export const shape = defineWorkflow({
  name: "conformance_shape",
  handler: async (workflow, { file, queue }: { file: string; queue: string }) => {
    const step = (line: string, waitMs: number) => workflow.run(record, { file, line, waitMs }, { queue });
    const branch = async (name: string, waitMs: number) => `${await step(`${name}1`, waitMs)}${await step(`${name}2`, 60 - waitMs)}`;
    const all = await Promise.all([branch("a", 60), branch("b", 30), branch("c", 0)]);
    const first = await Promise.race([step("slow", LOSES_MS), step("fast", 10), workflow.sleep(300_000)]);
    await workflow.sleep(50);
    return [...all, first, await step("last", 0)];
  },
});

export const napper = defineWorkflow({
  name: "conformance_napper",
  handler: async (workflow, { file, queue, ms }: { file: string; queue: string; ms: number }) => {
    await workflow.run(record, { file, line: "before" }, { queue });
    await workflow.sleep(ms);
    return workflow.run(record, { file, line: "after" }, { queue });
  },
});

/** Waits for a signal and runs a step, in turns; returns the payloads and outputs in order. */
export const listener = defineWorkflow({
  name: "conformance_listener",
  handler: async (workflow, { file, queue, signals }: { file: string; queue: string; signals: number }) => {
    const heard: unknown[] = [];
    for (let n = 0; n < signals; n++) {
      heard.push(await workflow.waitForSignal("word"));
      heard.push(await workflow.run(record, { file, line: `after ${n}` }, { queue }));
    }
    return heard;
  },
});

const KEYS = ["typescript", "ts", "console", "aa", "b"];

/** Returns an object with unsorted keys. */
export const tally = defineTask({
  name: "conformance_tally",
  handler: () => ({ ...Object.fromEntries(KEYS.map((key, index) => [key, index])), inner: [{ second: 2, first: 1 }] }),
});

/** Its steps follow the order of keys in its input, in a step's output and in a signal. */
export const orderly = defineWorkflow({
  name: "conformance_orderly",
  handler: async (workflow, { file, queue, ...input }: { file: string; queue: string } & Record<string, unknown>) => {
    const tell = (what: string, value: unknown) => workflow.run(record, { file, line: `${what}:${JSON.stringify(value)}` }, { queue });
    await tell("input", input);
    await tell("output", await workflow.run(tally, null, { queue }));
    await tell("signal", await workflow.waitForSignal("first"));
    return workflow.waitForSignal("second");
  },
});

export const patient = defineWorkflow({
  name: "conformance_patient",
  handler: async (workflow, { file, queue, ms }: { file: string; queue: string; ms: number }) => {
    await workflow.run(record, { file, line: "before" }, { queue });
    await workflow.run(block, { file, line: "long", waitMs: ms }, { queue });
    return workflow.run(record, { file, line: "last" }, { queue });
  },
});

export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}
