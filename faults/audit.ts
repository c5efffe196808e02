import { readFileSync } from "node:fs";
import type { TaskBackend, TaskResult } from "@task-backend/core";
import { mapInLanes } from "@task-backend/core/adapter";
import { chainOutput, endsBadly, isCancelled, taskOutput, type Effect } from "./tasks.ts";
import { untilAccepted } from "./until-accepted.ts";

/** A run that the engine has accepted, and what a wait for it has told. */
export interface Submitted {
  readonly n: number;
  readonly type: "task" | "chain";
  readonly id: string;
  /** When the wait has ended: with the output, or the code of the error. */
  told?: { readonly output: unknown } | { readonly code: string };
}

/** Each is to be 0. */
export interface Violations {
  /** Accepted, and unknown afterwards. */
  lost: string[];
  /** Two runs of one key, or a settled result that is another afterwards. */
  settledTwice: string[];
  /** A step began once more although a later one had begun from its output. */
  stepsRunAgain: string[];
  wrongResults: string[];
  neverSettled: string[];
  /** Settled, and whoever waited was not told. */
  waitsMissed: string[];
}

/** Reads the public API and the lines that the tasks have left, nothing else. */
export async function audit(backend: TaskBackend, submitted: readonly Submitted[], file: string): Promise<Violations> {
  const found: Violations = { lost: [], settledTwice: [], stepsRunAgain: [], wrongResults: [], neverSettled: [], waitsMissed: [] };
  const first = await readAll(backend, submitted);
  for (const [index, one] of submitted.entries()) {
    const result = first[index];
    const who = `${one.type} ${one.n} (${one.id})`;
    if (!result) found.lost.push(who);
    else if (!isSettled(result)) found.neverSettled.push(`${who} is ${result.status} after ${result.attempts} attempts`);
    else {
      const wrong = whatIsWrong(one, result);
      if (wrong !== undefined) found.wrongResults.push(`${who}: ${wrong}`);
      if (!one.told) found.waitsMissed.push(who);
      else if (!agrees(one.told, result))
        found.settledTwice.push(`${who}: the wait told ${JSON.stringify(one.told)}, now ${outcomeOf(result)}`);
    }
  }
  const second = await readAll(backend, submitted);
  for (const [index, one] of submitted.entries()) {
    const [before, after] = [first[index], second[index]];
    if (before && isSettled(before) && JSON.stringify(before) !== JSON.stringify(after))
      found.settledTwice.push(`${one.type} ${one.n} (${one.id}) was ${JSON.stringify(before)}, is ${JSON.stringify(after)}`);
  }
  auditEffects(readEffects(file), found);
  return found;
}

async function readAll(backend: TaskBackend, submitted: readonly Submitted[]): Promise<(TaskResult | undefined)[]> {
  return mapInLanes(submitted, 50, async ({ id }) => {
    try {
      return await untilAccepted(() => backend.getResult(id));
    } catch (error) {
      if ((error as { code?: string }).code === "RUN_NOT_FOUND") return undefined;
      throw error;
    }
  });
}

const isSettled = ({ status }: TaskResult): boolean => ["completed", "failed", "cancelled", "timed_out"].includes(status);

function outcomeOf(result: TaskResult): string {
  return result.status === "completed"
    ? JSON.stringify(result.output)
    : `${result.status}, ${JSON.stringify("error" in result ? result.error : undefined)}`;
}

function whatIsWrong({ n, type }: Submitted, result: TaskResult): string | undefined {
  // It may have ended before it was cancelled.
  if (isCancelled(n) && result.status === "cancelled") return undefined;
  if (type === "task" && endsBadly(n)) {
    const fails = result.status === "failed" && result.error.message === `${n} ends badly`;
    return fails ? undefined : `it should have failed, and gave ${outcomeOf(result)}`;
  }
  const expected = type === "task" ? taskOutput(n) : chainOutput(n);
  return result.status === "completed" && result.output === expected ? undefined : `${outcomeOf(result)} instead of ${expected}`;
}

function agrees(told: NonNullable<Submitted["told"]>, result: TaskResult): boolean {
  return "output" in told ? result.status === "completed" && result.output === told.output : result.status !== "completed";
}

function readEffects(file: string): Effect[] {
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Effect);
}

function auditEffects(effects: readonly Effect[], found: Violations): void {
  const runs = new Map<string, string>();
  const reached = new Map<string, number>();
  for (const { type, n, run, place = 0 } of effects) {
    const key = `${type} ${n}`;
    const known = runs.get(key);
    if (known !== undefined && known !== run) found.settledTwice.push(`${key} was run as ${known} and as ${run}`);
    runs.set(key, run);
    if (type !== "step") continue;
    const furthest = reached.get(run) ?? 0;
    if (place < furthest) {
      const all = effects.filter((effect) => effect.run === run).map((effect) => `${effect.place} (${effect.step}) by ${effect.how}`);
      found.stepsRunAgain.push(`step ${place} of ${run} began after step ${furthest} had: ${all.join("; ")}`);
    }
    reached.set(run, Math.max(furthest, place));
  }
}
