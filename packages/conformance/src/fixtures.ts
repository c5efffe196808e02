import { appendFileSync } from "node:fs";
import { defineTask, defineWorkflow } from "@task-backend/core";

/*
 * What worker processes of the suite run. Effects go to a file, a line each, so that the suite sees what happened in
 * processes that it killed.
 */

interface Effect {
  readonly file: string;
  readonly line: string;
}

/** Writes its line, waits, and returns it. */
export const record = defineTask({
  name: "conformance_record",
  retry: { attempts: 5, backoff: { delay: 20, jitter: false } },
  handler: async ({ file, line, waitMs = 0 }: Effect & { waitMs?: number }, context) => {
    appendFileSync(file, `${line} ${context.attempt} ${process.pid}\n`);
    if (waitMs > 0) await pause(waitMs, context.signal);
    return line;
  },
});

/** Writes a line when it starts and one when it is aborted or done. */
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

/** Takes its worker down with it. */
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
    const first = await Promise.race([step("slow", 400), step("fast", 10), workflow.sleep(10_000)]);
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

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}
