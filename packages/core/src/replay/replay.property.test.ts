import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import type { WorkflowDefinition } from "../define/definition.ts";
import type { JournalEntry } from "../port/port.ts";
import { taskRef } from "../define/task.ts";
import { defineWorkflow, type WorkflowContext } from "../define/workflow.ts";
import { simulate, type SimulationOptions } from "../testing/simulation.ts";

/*
 * Random workflows, as data: a small language of the calls that a workflow function may make, interpreted over `wf`. Each program
 * runs under a random completion order, then again with a crash before every tick.
 */

type Statement =
  | { kind: "step"; label: string; fails: boolean; caught: boolean }
  | { kind: "sleep"; ms: number }
  | { kind: "signal"; name: string; timeoutMs?: number }
  | { kind: "branch"; on: number; taken: Statement[]; otherwise: Statement[] }
  | { kind: "loop"; times: number; body: Statement[] }
  | { kind: "parallel"; how: "all" | "race" | "any" | "allSettled"; branches: Statement[][] }
  | { kind: "unawaited"; label: string };

const SIGNALS = ["red", "blue"];
const made = new Map<string, number>();
const seen = (what: string): void => void made.set(what, (made.get(what) ?? 0) + 1);

afterAll(() => {
  console.log(
    `generated: ${[...made]
      .map(([what, count]) => `${what} ${count}`)
      .sort()
      .join(", ")}`,
  );
});

const label = fc.string({ minLength: 1, maxLength: 3, unit: fc.constantFrom("a", "b", "c", "d") });

const { program } = fc.letrec<{ statement: Statement; program: Statement[] }>((tie) => ({
  program: fc.array(tie("statement"), { minLength: 1, maxLength: 4 }),
  statement: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    fc.record({ kind: fc.constant("step" as const), label, fails: fc.boolean(), caught: fc.boolean() }),
    fc.record({ kind: fc.constant("sleep" as const), ms: fc.integer({ min: 0, max: 5_000 }) }),
    fc.record(
      { kind: fc.constant("signal" as const), name: fc.constantFrom(...SIGNALS), timeoutMs: fc.integer({ min: 0, max: 3_000 }) },
      { requiredKeys: ["kind", "name"] },
    ),
    fc.record({ kind: fc.constant("unawaited" as const), label }),
    fc.record({
      kind: fc.constant("branch" as const),
      on: fc.integer({ min: 0, max: 3 }),
      taken: tie("program"),
      otherwise: tie("program"),
    }),
    fc.record({ kind: fc.constant("loop" as const), times: fc.integer({ min: 1, max: 3 }), body: tie("program") }),
    fc.record({
      kind: fc.constant("parallel" as const),
      how: fc.constantFrom("all" as const, "race" as const, "any" as const, "allSettled" as const),
      branches: fc.array(tie("program"), { minLength: 1, maxLength: 3 }),
    }),
  ),
}));

/** Runs a program. The workflow returns its trace, so that any difference in the events shows. */
async function interpret(wf: WorkflowContext, statements: readonly Statement[], trace: string[]): Promise<string> {
  for (const statement of statements) await perform(wf, statement, trace);
  return `${statements.length} done`;
}

const step = (name: string) => taskRef<Statement, string>({ name });

async function perform(wf: WorkflowContext, statement: Statement, trace: string[]): Promise<void> {
  switch (statement.kind) {
    case "step": {
      seen(`step that ${statement.fails ? (statement.caught ? "fails, caught" : "fails, uncaught") : "succeeds"}`);
      const output = wf.run(step(statement.label), statement);
      trace.push(statement.caught ? await output.catch((error: Error) => error.message) : await output);
      return;
    }
    case "sleep":
      seen("sleep");
      await wf.sleep(statement.ms);
      trace.push(`slept, ${wf.now()}`);
      return;
    case "signal": {
      seen(`signal ${statement.timeoutMs === undefined ? "without" : "with"} timeout`);
      const options = statement.timeoutMs === undefined ? {} : { timeout: statement.timeoutMs };
      trace.push(await wf.waitForSignal<string>(statement.name, options).catch((error: Error) => error.name));
      return;
    }
    case "unawaited":
      seen("step that nobody awaits");
      void wf.run(step(statement.label), statement).then(
        (output) => trace.push(`by the way ${output}`),
        (error: Error) => trace.push(`by the way ${error.message}`),
      );
      return;
    case "branch":
      seen("branch");
      await interpret(wf, trace.length % 4 === statement.on || wf.random() < 0.3 ? statement.taken : statement.otherwise, trace);
      return;
    case "loop":
      seen("loop");
      for (let round = 0; round < statement.times; round++) await interpret(wf, statement.body, trace);
      return;
    case "parallel": {
      seen(`parallel ${statement.how}`);
      if (statement.how === "race" && statement.branches.length > 1) seen("race with losers");
      const branches = statement.branches.map((branch) => interpret(wf, branch, trace));
      const combined: Promise<unknown> =
        statement.how === "all"
          ? Promise.all(branches)
          : statement.how === "race"
            ? Promise.race(branches)
            : statement.how === "any"
              ? Promise.any(branches)
              : Promise.allSettled(branches);
      for (const branch of branches) branch.catch(() => {});
      trace.push(JSON.stringify(await combined));
    }
  }
}

function workflowOf(statements: readonly Statement[]): WorkflowDefinition<null, string[]> {
  return defineWorkflow({
    name: "generated",
    handler: async (wf) => {
      const trace: string[] = [];
      try {
        await interpret(wf, statements, trace);
      } catch (error) {
        trace.push(`ended by ${(error as Error).message}`);
        // Cleanup steps are carried out, also when the run was cancelled.
        trace.push(await wf.run(step("cleanup"), statements[0] as Statement).catch((thrown: Error) => thrown.name));
      }
      return trace;
    },
  });
}

/** A signal is early when nothing waits for it yet. */
function countSignals(journal: readonly JournalEntry[]): void {
  const waits = new Map<number, string>();
  for (const entry of journal) {
    if (entry.type === "command" && /^await(-newest)?:/.test(entry.key)) waits.set(entry.n, entry.key.split(":")[1] as string);
    if (entry.type === "command" && entry.key.startsWith("await-newest:")) seen("wait while an older one is open");
    if (entry.type === "fired") waits.delete(entry.n);
    if (entry.type !== "signal") continue;
    const wait = [...waits].find(([, name]) => name === entry.name)?.[0];
    seen(wait === undefined ? "signal before its wait" : "signal after its wait");
    if (wait !== undefined) waits.delete(wait);
  }
}

/** Enough signals for any program. Early ones are kept until a wait, and those after the end are not needed. */
const signals = Array.from({ length: 60 }, (_, index) => ({ name: SIGNALS[index % 2] as string, payload: `signal ${index}` }));

function optionsOf(seed: number, cancelAt: number | undefined): SimulationOptions {
  return {
    seed,
    signals,
    // No time is lost, so that the times that the function sees must be the same as well.
    downMs: 0,
    ...(cancelAt !== undefined && { cancelAt }),
    step: (name, input) => {
      if ((input as { fails?: boolean }).fails && name !== "cleanup")
        throw Object.assign(new Error(`${name} failed`), { stack: undefined });
      return `${name} gave ${JSON.stringify(input).length}`;
    },
  };
}

const settings = fc.record({ seed: fc.nat(), cancelAt: fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined, freq: 4 }) });

test("a crash before any tick changes nothing: same result, same record, no recorded step started again", async () => {
  let crashes = 0;
  await fc.assert(
    fc.asyncProperty(program, settings, async (statements, { seed, cancelAt }) => {
      const workflow = workflowOf(statements);
      const options = optionsOf(seed, cancelAt);
      const expected = await simulate(workflow, null, options);
      expect(expected.waitsFor).toBeUndefined();
      expect(expected.result.do, JSON.stringify(expected.result)).not.toBe("retry");
      if (expected.result.do === "settle") seen("cancelled run");
      countSignals(expected.journal);
      for (let crashAt = 1; crashAt <= expected.ticks; crashAt++) {
        crashes++;
        const actual = await simulate(workflow, null, { ...options, crashAt });
        expect(actual.result).toEqual(expected.result);
        expect([...actual.starts.values()].every((count) => count === 1)).toBe(true);
        expect(actual.journal).toEqual(expected.journal);
      }
    }),
    { numRuns: 300 },
  );
  made.set("crash and replay", crashes);
  for (const what of [
    "step that succeeds",
    "step that fails, caught",
    "step that fails, uncaught",
    "step that nobody awaits",
    "sleep",
    "signal with timeout",
    "signal without timeout",
    "branch",
    "loop",
    "parallel all",
    "parallel race",
    "parallel any",
    "parallel allSettled",
    "cancelled run",
    "signal before its wait",
    "signal after its wait",
    "race with losers",
  ]) {
    expect(made.get(what) ?? 0, what).toBeGreaterThan(0);
  }
}, 120_000);

/** The same program with a timeout on every wait, because few signals come. */
function withTimeouts(statements: readonly Statement[]): Statement[] {
  return statements.map((statement): Statement => {
    if (statement.kind === "signal") return { ...statement, timeoutMs: statement.timeoutMs ?? 2_000 };
    if (statement.kind === "loop") return { ...statement, body: withTimeouts(statement.body) };
    if (statement.kind === "parallel") return { ...statement, branches: statement.branches.map(withTimeouts) };
    if (statement.kind === "branch")
      return { ...statement, taken: withTimeouts(statement.taken), otherwise: withTimeouts(statement.otherwise) };
    return statement;
  });
}

test("waits of several rounds for one signal are served alike at each replay", async () => {
  const race: fc.Arbitrary<Statement> = fc.record({
    kind: fc.constant("parallel" as const),
    how: fc.constantFrom("race" as const, "any" as const),
    branches: fc.constantFrom(
      SIGNALS.map((name): Statement[] => [{ kind: "signal", name }]),
      [[{ kind: "signal", name: "red" }], [{ kind: "sleep", ms: 500 }]],
      [[{ kind: "signal", name: "red" }], [{ kind: "signal", name: "red" }], [{ kind: "step", label: "a", fails: false, caught: true }]],
    ),
  });
  const rounds = fc.record({ kind: fc.constant("loop" as const), times: fc.integer({ min: 2, max: 4 }), body: fc.tuple(race) });
  await fc.assert(
    fc.asyncProperty(rounds, program, fc.nat(), fc.integer({ min: 0, max: 6 }), async (loop, more, seed, count) => {
      const workflow = workflowOf(withTimeouts([loop, ...more.slice(0, 2)]));
      const options = { ...optionsOf(seed, undefined), signals: signals.slice(0, count) };
      const expected = await simulate(workflow, null, options);
      countSignals(expected.journal);
      for (let crashAt = 1; crashAt <= expected.ticks; crashAt++) {
        const actual = await simulate(workflow, null, { ...options, crashAt });
        expect(actual.result).toEqual(expected.result);
        expect(actual.journal).toEqual(expected.journal);
      }
    }),
    { numRuns: 100 },
  );
  expect(made.get("wait while an older one is open") ?? 0).toBeGreaterThan(50);
}, 60_000);

test("code that differs from the record is told so, or was never asked before the crash", async () => {
  let differences = 0;
  await fc.assert(
    fc.asyncProperty(program, settings, fc.nat(), async (statements, { seed }, at) => {
      const original = workflowOf(statements);
      const options = optionsOf(seed, undefined);
      const expected = await simulate(original, null, options);
      const changed = workflowOf([{ kind: "step", label: "inserted", fails: false, caught: true }, ...statements]);
      const crashAt = 1 + (at % expected.ticks);
      const actual = await simulate(original, null, { ...options, crashAt, afterCrash: changed });
      // Before the first tick nothing is recorded, so the changed code is no change.
      if (crashAt === 1) {
        expect(actual.result.do).not.toBe("retry");
        return;
      }
      differences++;
      expect(actual.result).toMatchObject({ do: "retry", error: { code: "NON_DETERMINISM" } });
      expect([...actual.starts.values()].every((count) => count === 1)).toBe(true);
    }),
    { numRuns: 150 },
  );
  made.set("changed code noticed", differences);
  expect(differences).toBeGreaterThan(0);
}, 60_000);

test("code that asks for less than the record is told so", async () => {
  const steps = (...names: string[]): WorkflowDefinition<null, string[]> =>
    defineWorkflow({
      name: "fewer",
      handler: async (wf) => Promise.all(names.map((name) => wf.run(step(name), { kind: "sleep", ms: 1 }))),
    });
  const ways = new Set<string>();
  for (let seed = 1; seed <= 20; seed++) {
    const { result } = await simulate(steps("a", "b"), null, {
      ...optionsOf(seed, undefined),
      signals: [],
      crashAt: 2,
      afterCrash: steps("a"),
    });
    if (result.do !== "retry") throw new Error(`seed ${seed} gave ${JSON.stringify(result)}`);
    expect(result.error.code).toBe("NON_DETERMINISM");
    ways.add(result.error.message.replace(/^.*its record: | with input .*|, (and|which) .*$/g, ""));
  }
  // The message depends on which of the two calls was done when the worker crashed.
  expect([...ways].sort()).toEqual(["the record goes on with wf.run(b)", "the record has an outcome of call 1"]);
});
