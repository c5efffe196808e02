import { DefinitionSet } from "../define/definition-set.ts";
import type { WorkflowDefinition } from "../define/definition.ts";
import { cancelledRecord, toErrorRecord } from "../values/error-record.ts";
import { toJson, type Json } from "../values/json.ts";
import { silentLogger } from "../values/log.ts";
import type { Command, JournalEntry, StepOutcome, TickResult } from "../port/port.ts";
import { createAdvance, type Advance } from "../replay/advance.ts";
import { seededRandom } from "../replay/random.ts";
import { signalsFirst } from "../replay/signals-first.ts";
import { CrashTestError } from "./crash-test-error.ts";
import { byClock, withClocks } from "./simulated-clock.ts";

/*
 * A workflow run in memory: an engine without I/O, whose completions come in an order drawn from a seed and whose
 * worker may crash before any tick. Tests of the replay engine and of users' workflows are written on it.
 */

export interface SimulationOptions {
  readonly seed: number;
  /** The output of a step, by its name and input. A rejection makes the step fail, but a CrashTestError ends the simulation. */
  readonly step: (name: string, input: Json) => unknown;
  /** The signals, sent in this order, each at a moment drawn from the seed. */
  readonly signals?: readonly { readonly name: string; readonly payload: Json }[];
  /** Requests the cancellation before this tick. */
  readonly cancelAt?: number;
  /** Crashes before this tick, and replays from the journal. */
  readonly crashAt?: number;
  /**
   * How much later the clock of the workflow's code is after the crash. Default one hour. The events of the run have the same times
   * as without the crash, so that the code alone causes any difference.
   */
  readonly downMs?: number;
  /** The code that runs after the crash. Default: the same. */
  readonly afterCrash?: WorkflowDefinition;
}

export interface Simulation {
  /** The answer that ended the run: `retry` when the function differs from its journal or stalls. */
  readonly result: TickResult;
  readonly journal: readonly JournalEntry[];
  readonly ticks: number;
  /** How often each command was started, by number. */
  readonly starts: ReadonlyMap<number, number>;
  /** The wait of a function that nothing is left to wake. */
  readonly waitsFor?: string;
}

interface Operation {
  readonly command: Command;
  readonly outcome?: StepOutcome;
}

const START_MS = Date.UTC(2030, 0, 1);
const DOWN_MS = 3_600_000;
const MAX_TICKS = 100_000;

export function simulate(workflow: WorkflowDefinition, input: Json, options: SimulationOptions): Promise<Simulation> {
  return withClocks(() => run(workflow, input, options));
}

async function run(workflow: WorkflowDefinition, input: Json, options: SimulationOptions): Promise<Simulation> {
  const { seed, crashAt, afterCrash = workflow, cancelAt, downMs = DOWN_MS } = options;
  const journal: JournalEntry[] = [];
  const open = new Map<number, Operation>();
  const starts = new Map<number, number>();
  const signals = [...(options.signals ?? [])];
  let nowMs = START_MS + seed;
  let lostMs = 0;
  let commandsSeen = 0;
  /** The number of entries that the live run was fed, and the number that a tick was carried out for. */
  let [fed, seen] = [0, 0];
  let advance = engine(workflow, () => nowMs);
  let pick = seededRandom(`${seed}:0`);

  const tick = (): Promise<TickResult> => {
    const { name, version, queue } = workflow;
    const run = { id: `simulated-${seed}`, name, version, queue, headers: {}, startedAtMs: START_MS + seed };
    // Each replay gets its own copies, as from a store: a change that the workflow makes to them is not recorded.
    const given = { input: copy(input), entries: copy(journal.slice(fed)) };
    return byClock(
      () => nowMs + lostMs,
      () => advance.advance({ ...run, ...given, from: fed, seen, commandsSeen, retries: 0 }),
    );
  };

  for (let ticks = 1; ticks <= MAX_TICKS; ticks++) {
    if (ticks === cancelAt) journal.push({ type: "cancel", atMs: nowMs });
    if (ticks === crashAt) {
      // The answer is lost with the worker. The next tick comes later, from the journal alone.
      await tick();
      lostMs = downMs;
      advance = engine(afterCrash, () => nowMs);
      fed = 0;
    }
    const result = await tick();
    if (result.do === "needJournal") {
      if (result.signalsFirst) journal.splice(0, journal.length, ...signalsFirst(journal, seen));
      fed = 0;
      continue;
    }
    if (result.do !== "wait") return { result, journal, ticks, starts };
    fed = seen = journal.length;
    for (const command of result.commands) {
      journal.push({ type: "command", n: command.n, key: command.key });
      commandsSeen++;
      starts.set(command.n, (starts.get(command.n) ?? 0) + 1);
      await start(command, open, options);
    }
    // The same moment draws the same events, whether or not a worker crashed before it.
    pick = seededRandom(`${seed}:${journal.length}`);
    const event = next(open, signals, pick, nowMs);
    if (event === undefined) {
      const waits = [...open.values()].map(({ command }) => (command.do === "await" ? `signal "${command.signal}"` : command.key));
      return { result, journal, ticks, starts, waitsFor: waits.join(", ") };
    }
    nowMs = event.atMs;
    journal.push(event);
  }
  throw new Error(`Workflow "${workflow.name}" did not end within ${MAX_TICKS} ticks.`);
}

function copy<T>(json: T): T {
  return JSON.parse(JSON.stringify(json)) as T;
}

function engine(workflow: WorkflowDefinition, now: () => number): Advance {
  const definitions = new DefinitionSet();
  definitions.add(workflow, "simulation");
  return createAdvance({ definitions, check: (value, what) => toJson(value, what), log: silentLogger, now });
}

async function start(command: Command, open: Map<number, Operation>, { step }: SimulationOptions): Promise<void> {
  if (command.do === "cancel") {
    const operation = open.get(command.of);
    if (operation?.command.do === "run")
      open.set(command.of, {
        command: operation.command,
        outcome: { status: "cancelled", error: cancelledRecord(operation.command.run.name) },
      });
    else open.delete(command.of);
    return;
  }
  if (command.do !== "run") {
    open.set(command.n, { command });
    return;
  }
  const { name, input } = command.run;
  const outcome = await Promise.resolve()
    .then(() => step(name, input))
    .then(
      (output): StepOutcome => ({ status: "completed", output: toJson(output, `output of step "${name}"`) }),
      (thrown: unknown): StepOutcome => {
        if (thrown instanceof CrashTestError) throw thrown;
        return { status: "failed", error: toErrorRecord(thrown) };
      },
    );
  open.set(command.n, { command, outcome });
}

/** Draws the next event. Time advances by a little, or to the timer that is due first. */
function next(
  open: Map<number, Operation>,
  signals: { name: string; payload: Json }[],
  random: () => number,
  nowMs: number,
): Exclude<JournalEntry, { type: "command" }> | undefined {
  const timers = [...open.values()].flatMap(({ command }) =>
    command.do === "sleep" || (command.do === "await" && command.untilMs !== undefined)
      ? [{ n: command.n, dueMs: command.untilMs as number }]
      : [],
  );
  const first = timers.sort((a, b) => a.dueMs - b.dueMs || a.n - b.n)[0];
  const candidates: (() => Exclude<JournalEntry, { type: "command" }>)[] = [];
  const soon = nowMs + Math.floor(random() * 1_000);
  for (const { command, outcome } of open.values()) {
    if (outcome) {
      candidates.push(() => {
        open.delete(command.n);
        return { type: "settled", n: command.n, atMs: soon, outcome };
      });
    }
  }
  if (first) {
    candidates.push(() => {
      open.delete(first.n);
      return { type: "fired", n: first.n, atMs: Math.max(nowMs, first.dueMs) };
    });
  }
  const [signal] = signals;
  if (signal) {
    candidates.push(() => {
      signals.shift();
      return { type: "signal", ...signal, atMs: soon };
    });
  }
  return candidates[Math.floor(random() * candidates.length)]?.();
}
