import { appendFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { defineTask, defineWorkflow, NonRetryableError } from "@task-backend/core";

/*
 * What runs under faults. Every start of an attempt leaves a line, which is all that the auditor knows of it beside the public API.
 */

export interface Work {
  readonly n: number;
  /** The file of the lines. */
  readonly file: string;
}

interface StepWork extends Work {
  /** Where the step stands: steps of the same place may run side by side. */
  readonly place: number;
  readonly of: string;
  readonly value: number;
}

/** One line of the file. */
export interface Effect {
  readonly type: "task" | "step";
  readonly n: number;
  /** The run, or of a step the workflow's. */
  readonly run: string;
  readonly place?: number;
  readonly step?: string;
  /** For people who look for the cause. */
  readonly how?: string;
}

const PLACES = 6;

function leave(file: string, effect: Effect): void {
  // One write of one line: processes may append at the same time.
  appendFileSync(
    file,
    `${JSON.stringify({ ...effect, how: `process ${process.pid} at ${Math.round(performance.timeOrigin + performance.now())}` })}\n`,
  );
}

const retry = { attempts: 40, backoff: { delay: 50, factor: 2, maxDelay: 1_000 } } as const;
/** The same for the same number, whoever asks. */
const share = (n: number, salt: number): number => ((n * 7_919 + salt * 104_729) % 1_009) / 1_009;

/** One in ten fails for good, one in five fails once before it works. */
export const endsBadly = (n: number): boolean => share(n, 1) < 0.1;
/** One in twelve is cancelled by the producer, at some moment of its life. */
export const isCancelled = (n: number): boolean => share(n, 4) < 0.08;
/** One in five chains waits for signals. */
export const listens = (n: number): boolean => share(n, 5) < 0.2;
/** What it is sent, in this order. */
export const WORDS = ["one", "two"] as const;
export const taskOutput = (n: number): number => 3 * n + 1;
export const chainOutput = (n: number): number => 2 * (n + PLACES) - 1;

export const faultyTask = defineTask({
  name: "faulty_task",
  queue: "faults",
  retry,
  handler: async ({ n, file }: Work, context) => {
    leave(file, { type: "task", n, run: context.id });
    await pause(300 * share(n, 2));
    if (endsBadly(n)) throw new NonRetryableError(`${n} ends badly`);
    if (context.attempt === 1 && share(n, 3) < 0.2) throw new Error(`${n} fails once`);
    return taskOutput(n);
  },
});

export const faultyStep = defineTask({
  name: "faulty_step",
  queue: "faults",
  retry,
  handler: async ({ n, file, place, of, value }: StepWork, context) => {
    leave(file, { type: "step", n, run: of, place, step: `${context.id}, attempt ${context.attempt}` });
    await pause(100 * share(n, place));
    if (context.attempt === 1 && share(n, 10 + place) < 0.1) throw new Error(`${n} fails once at ${place}`);
    return value + 1;
  },
});

/** Steps one after the other, two side by side at the end, a sleep, and for some two signals. */
export const faultyChain = defineWorkflow({
  name: "faulty_chain",
  queue: "faults",
  handler: async (wf, { n, file }: Work) => {
    let value = n;
    const step = (place: number): Promise<number> => wf.run(faultyStep, { n, file, place, of: wf.id, value });
    for (let place = 0; place < PLACES - 1; place++) {
      value = await step(place);
      if (place === 2) await wf.sleep("200ms");
      if (place !== 3 || !listens(n)) continue;
      for (const word of WORDS) {
        const heard = await wf.waitForSignal<string>("word");
        if (heard !== word) throw new NonRetryableError(`${n} heard ${heard} instead of ${word}`);
      }
    }
    const [left, right] = await Promise.all([step(PLACES - 1), step(PLACES - 1)]);
    return left + right - 1;
  },
});
