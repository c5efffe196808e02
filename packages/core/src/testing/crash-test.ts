import type { Definition, WorkflowDefinition } from "../define/definition.ts";
import { TaskBackendError } from "../values/errors.ts";
import { toJson, type Json } from "../values/json.ts";
import type { TickResult } from "../port/port.ts";
import { simulate, type Simulation, type SimulationOptions } from "./simulation.ts";

export interface CrashTestOptions {
  /** What each step gives, by task name; one that throws is a step that fails. */
  tasks: Record<string, (input: never) => unknown>;
  /** How many completion orders are tried, or which ones. Default 50. */
  seeds?: number | readonly number[];
  /** Sent to the workflow in this order, at moments drawn from the seed. */
  signals?: readonly { name: string; payload?: unknown }[];
}

/** What `crashTest` did. */
export interface CrashTestReport {
  readonly seeds: number;
  /** How often the workflow was crashed and replayed. */
  readonly crashes: number;
  /** Different results that the completion orders led to, as JSON: more than one is fine where the workflow races. */
  readonly results: readonly string[];
}

/** The workflow gave another result after a crash, or asked for something else. */
export class CrashTestError extends TaskBackendError {
  static override readonly kind = "CrashTestError";
  readonly seed: number;
  constructor(seed: number, message: string) {
    super("CRASH_TEST", message);
    this.seed = seed;
  }
}

/**
 * Runs a workflow in memory under many completion orders, and again with a crash at every point of each: the function
 * is replayed from its record, an hour later by `Date`, and must end as it did without the crash.
 * Steps are fakes; nothing is stored. `Date` is replaced while the function runs.
 * @throws CrashTestError naming the first seed whose result differs
 * @example
 * await crashTest(publish, { topic: "queues" }, { tasks: { write: () => "draft" }, signals: [{ name: "approved" }] });
 */
export async function crashTest(
  workflow: Definition,
  input: unknown,
  { tasks, seeds = 50, signals = [] }: CrashTestOptions,
): Promise<CrashTestReport> {
  if (workflow.kind !== "workflow") throw new CrashTestError(0, `"${workflow.name}" is a task; crashTest takes a workflow.`);
  const json = toJson(input, `input of "${workflow.name}"`);
  const sent = signals.map(({ name, payload }) => ({ name, payload: toJson(payload, `payload of signal "${name}"`) }));
  const list = typeof seeds === "number" ? Array.from({ length: seeds }, (_, index) => index + 1) : seeds;
  const results = new Set<string>();
  let crashes = 0;
  for (const seed of list) {
    const options: SimulationOptions = { seed, signals: sent, step: stepOf(workflow.name, tasks) };
    const expected = await reference(workflow, json, options);
    results.add(describe(expected.result));
    for (let crashAt = 1; crashAt <= expected.ticks; crashAt++) {
      crashes++;
      compare(workflow, options, crashAt, expected, await simulate(workflow, json, { ...options, crashAt }));
    }
  }
  return { seeds: list.length, crashes, results: [...results] };
}

function stepOf(workflow: string, tasks: CrashTestOptions["tasks"]): SimulationOptions["step"] {
  return (name, input) => {
    const fake = Object.hasOwn(tasks, name) ? tasks[name] : undefined;
    if (!fake)
      throw new CrashTestError(
        0,
        `Workflow "${workflow}" runs "${name}", which has no fake; add tasks: { ${JSON.stringify(name)}: (input) => … }.`,
      );
    return fake(input as never);
  };
}

async function reference(workflow: WorkflowDefinition, input: Json, options: SimulationOptions): Promise<Simulation> {
  const { seed } = options;
  const simulation = await simulate(workflow, input, options);
  const { result, waitsFor } = simulation;
  if (waitsFor !== undefined)
    throw new CrashTestError(
      seed,
      `Seed ${seed}: workflow "${workflow.name}" waits for ${waitsFor} and nothing comes; add it to \`signals\`.`,
    );
  if (result.do === "retry") throw new CrashTestError(seed, `Seed ${seed}, without any crash: ${result.error.message}`);
  if (result.do === "settle" && result.error.code === "CRASH_TEST") throw new CrashTestError(seed, result.error.message);
  return simulation;
}

function compare(
  workflow: WorkflowDefinition,
  { seed }: SimulationOptions,
  crashAt: number,
  expected: Simulation,
  actual: Simulation,
): void {
  const where = `Seed ${seed}, crash before tick ${crashAt} of ${expected.ticks}`;
  if (actual.result.do === "retry") throw new CrashTestError(seed, `${where}: ${actual.result.error.message}`);
  const [want, got] = [describe(expected.result), describe(actual.result)];
  if (want !== got || actual.waitsFor !== undefined) {
    throw new CrashTestError(
      seed,
      `${where}: workflow "${workflow.name}" ended with ${got}, and without the crash with ${want}. Between wf calls use no clock, randomness or I/O.`,
    );
  }
}

function describe(result: TickResult): string {
  if (result.do === "complete") return JSON.stringify(result.output);
  return result.do === "settle" ? `${result.status}: ${result.error.message}` : result.do;
}
