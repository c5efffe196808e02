import { checkOptions } from "../define/checks.ts";
import { isBranded, type Definition, type WorkflowDefinition } from "../define/definition.ts";
import type { JournalEntry, TickResult } from "../port/port.ts";
import { describeCall } from "../replay/call-keys.ts";
import { seededRandom } from "../replay/random.ts";
import { InvalidArgumentError } from "../values/errors.ts";
import { toJson, type Json } from "../values/json.ts";
import { isPlainObject, show } from "../values/show.ts";
import { guardProcess } from "../work/run-scope.ts";
import { CrashTestError } from "./crash-test-error.ts";
import { simulate, type Simulation, type SimulationOptions } from "./simulation.ts";
import { withClocks } from "./simulated-clock.ts";

export interface CrashTestOptions {
  /** The fake of each step, by task name. It returns the output; one that throws is a step that fails. */
  tasks: Record<string, (input: never) => unknown>;
  /** How many completion orders are tried, or their seeds. Default 50. */
  seeds?: number | readonly number[];
  /** The signals sent to the workflow, in this order, at moments drawn from the seed. */
  signals?: readonly { name: string; payload?: unknown }[];
  /**
   * At how many points of each completion order a crash is tried, at most; `Infinity` for all. By default a short workflow is crashed
   * at every point, and a long one at so many that the test takes a second or two. The seed chooses them, so seeds differ in them.
   */
  crashPoints?: number;
}

/** The report of `crashTest`. */
export interface CrashTestReport {
  readonly seeds: number;
  /** How often the workflow was crashed and replayed. */
  readonly crashes: number;
  /** At how many points the workflow could have been crashed. This is more than `crashes` when the points were sampled. */
  readonly crashPoints: number;
  /** The different results of the completion orders, as JSON. More than one is fine when the workflow races. */
  readonly results: readonly string[];
}

/** By default the test makes at most so many ticks in all seeds together, replayed ones included: a second or two. */
const TICKS = 60_000;

/**
 * Runs a workflow in memory under many completion orders, and again with a crash at every point of each. After a crash the function
 * is replayed from its journal, with its `Date` an hour later. It must make the same calls in the same order, and have the same
 * result as without the crash. Steps are fakes; nothing is stored. Only the workflow's own code sees the simulated `Date`.
 * @throws CrashTestError naming the first seed whose result differs
 * @example
 * await crashTest(publish, { topic: "queues" }, { tasks: { write: () => "draft" }, signals: [{ name: "approved" }] });
 */
export async function crashTest(workflow: Definition, input: unknown, options: CrashTestOptions): Promise<CrashTestReport> {
  const name = checked(workflow, options);
  const { seeds = 50, signals = [] } = options;
  const json = toJson(input, `input of "${name}"`);
  const sent = signals.map((signal) => ({ name: signal.name, payload: toJson(signal.payload, `payload of signal "${signal.name}"`) }));
  const list = typeof seeds === "number" ? Array.from({ length: seeds }, (_, index) => index + 1) : seeds;
  const results = new Set<string>();
  const report = { crashes: 0, crashPoints: 0 };
  // A rejection that the workflow handles late or never must not end the process, as in a worker.
  const unguard = guardProcess();
  try {
    await withClocks(async () => {
      for (const seed of list) {
        const settings: SimulationOptions = { seed, signals: sent, step: stepOf(name, options.tasks) };
        const expected = await reference(workflow as WorkflowDefinition, json, settings);
        results.add(describe(expected.result));
        const points = pointsOf(seed, expected.ticks, options.crashPoints ?? TICKS / list.length / (2 * expected.ticks));
        report.crashPoints += expected.ticks;
        for (const crashAt of points) {
          report.crashes++;
          compare(workflow, seed, crashAt, expected, await simulate(workflow as WorkflowDefinition, json, { ...settings, crashAt }));
        }
      }
    });
  } finally {
    unguard();
  }
  return { seeds: list.length, ...report, results: [...results] };
}

function checked(workflow: Definition, options: CrashTestOptions): string {
  if (!isBranded(workflow)) throw new CrashTestError(0, `crashTest was given ${show(workflow)}; give a workflow.`);
  const { name, kind } = workflow;
  if (kind !== "workflow") throw new CrashTestError(0, `"${name}" is a ${kind as string}; crashTest takes a workflow.`);
  checkOptions(options, ["tasks", "seeds", "signals", "crashPoints"], "The options of crashTest", InvalidArgumentError);
  if (!isPlainObject(options.tasks))
    throw new InvalidArgumentError(`The tasks of crashTest are ${show(options.tasks)}; give an object of fakes by task name.`);
  const { seeds = 50, crashPoints = 1 } = options;
  const least = typeof seeds === "number" ? Math.floor(seeds) : seeds.length;
  if (!(least >= 1)) throw new InvalidArgumentError(`The seeds of crashTest are ${show(seeds)}; give a number from 1, or a list of seeds.`);
  if (!(crashPoints >= 1)) throw new InvalidArgumentError(`The crashPoints of crashTest are ${show(crashPoints)}; give a number from 1.`);
  return name;
}

/** Chooses at most so many of the ticks from 1 to `ticks`: the first, the last, and one of each equal part between them. */
function pointsOf(seed: number, ticks: number, most: number): Iterable<number> {
  if (most >= ticks) return Array.from({ length: ticks }, (_, index) => index + 1);
  const random = seededRandom(`points ${seed}`);
  if (most < 2) return [1 + Math.floor(random() * ticks)];
  const parts = Math.floor(most) - 2;
  const between = Array.from({ length: parts }, (_, index) => 2 + Math.floor(((index + random()) * (ticks - 2)) / parts));
  return new Set([1, ...between, ticks]);
}

function stepOf(workflow: string, tasks: CrashTestOptions["tasks"]): SimulationOptions["step"] {
  return (name, input) => {
    const fake = Object.hasOwn(tasks, name) ? tasks[name] : undefined;
    if (fake) return fake(input as never);
    const remedy = `add tasks: { ${JSON.stringify(name)}: (input) => … }`;
    throw new CrashTestError(0, `Workflow "${workflow}" runs "${name}", which has no fake; ${remedy}.`);
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
  return simulation;
}

const RULE = "Between wf calls use no clock, randomness or I/O, and no variable that outlives the function.";

function compare({ name }: Definition, seed: number, crashAt: number, expected: Simulation, actual: Simulation): void {
  const where = `Seed ${seed}, crash before tick ${crashAt} of ${expected.ticks}`;
  if (actual.result.do === "retry") throw new CrashTestError(seed, `${where}: ${actual.result.error.message}`);
  const how = differenceBetween(expected, actual);
  if (how !== undefined) throw new CrashTestError(seed, `${where}: workflow "${name}" ${how}. ${RULE}`);
}

/** Describes the first call that differs, or else the end that differs. */
function differenceBetween(expected: Simulation, actual: Simulation): string | undefined {
  const [calls, before] = [callsOf(actual.journal), callsOf(expected.journal)];
  const ended = actual.waitsFor === undefined ? `ended with ${describe(actual.result)}` : `waits for ${actual.waitsFor}`;
  for (let n = 0; n < Math.max(calls.length, before.length); n++) {
    const [call, then] = [calls[n], before[n]];
    if (call === then) continue;
    if (call === undefined) return `${ended} and made no call ${n}, which without the crash was ${describeCall(then as string)}`;
    if (then === undefined) return `made call ${n}, ${describeCall(call)}, and without the crash ended with ${describe(expected.result)}`;
    return `made call ${n}, ${describeCall(call)}, which without the crash was ${describeCall(then)}`;
  }
  const same = actual.waitsFor === undefined && describe(actual.result) === describe(expected.result);
  return same ? undefined : `${ended}, and without the crash ended with ${describe(expected.result)}`;
}

/** The calls of the function in order, each with its input. */
function callsOf(journal: readonly JournalEntry[]): string[] {
  return journal.flatMap((entry) => (entry.type === "command" ? [entry.key] : []));
}

function describe(result: TickResult): string {
  if (result.do === "complete") return JSON.stringify(result.output);
  return result.do === "settle" ? `${result.status}: ${result.error.message}` : result.do;
}
