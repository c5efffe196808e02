import type { Runnable, WorkflowDefinition } from "./definition.ts";
import { isBranded } from "./definition.ts";
import { InvalidDefinitionError } from "../values/errors.ts";
import { defineWorkflow } from "./workflow.ts";

/** The properties of `Next` that `Previous` does not already hold in a fitting type. */
type Missing<Previous, Next> = {
  [K in keyof Next as K extends keyof Previous ? (Previous[K] extends Next[K] ? never : K) : K]: Next[K];
} & Partial<Next>;

/** What may stand beside a task: properties merged over an object, or a function of the previous output. */
type Bridge<Previous, Next> =
  ((previous: Previous) => Next) | (Previous extends object ? (Next extends object ? Missing<Previous, Next> : never) : never);

type Step<Previous, In, Out> = Runnable<Previous, Out> | readonly [task: Runnable<In, Out>, input: Bridge<Previous, NoInfer<In>>];

type AnyStep = Runnable<never, unknown> | readonly [task: Runnable<never, unknown>, input: object | ((previous: never) => unknown)];

/** Where a chain runs, where that differs from the default. */
export interface ChainOptions {
  /** Of the chain itself; its steps keep theirs. Default: its first step's. */
  queue?: string;
  /** Default `"1"`. */
  version?: string;
}

/**
 * A workflow of steps in a row, each given the output of the one before.
 * A step is a task (or `taskRef`, or workflow), `[task, extra]` to merge properties over the previous output,
 * or `[task, (previous) => input]`. Steps that do not fit each other do not compile.
 * A failing step settles the run, with `error.step` naming it; later ones never run.
 * @throws InvalidDefinitionError
 * @example
 * export const pipeline = chain("data_pipeline", [extract, transform, [load, { target: "warehouse" }]]);
 */
export function chain<I1, O1>(name: string, steps: readonly [Runnable<I1, O1>], options?: ChainOptions): WorkflowDefinition<I1, O1>;
export function chain<I1, O1, I2, O2>(
  name: string,
  steps: readonly [Runnable<I1, O1>, Step<O1, I2, O2>],
  options?: ChainOptions,
): WorkflowDefinition<I1, O2>;
export function chain<I1, O1, I2, O2, I3, O3>(
  name: string,
  steps: readonly [Runnable<I1, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>],
  options?: ChainOptions,
): WorkflowDefinition<I1, O3>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4>(
  name: string,
  steps: readonly [Runnable<I1, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>, Step<O3, I4, O4>],
  options?: ChainOptions,
): WorkflowDefinition<I1, O4>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5>(
  name: string,
  steps: readonly [Runnable<I1, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>, Step<O3, I4, O4>, Step<O4, I5, O5>],
  options?: ChainOptions,
): WorkflowDefinition<I1, O5>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5, I6, O6>(
  name: string,
  steps: readonly [Runnable<I1, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>, Step<O3, I4, O4>, Step<O4, I5, O5>, Step<O5, I6, O6>],
  options?: ChainOptions,
): WorkflowDefinition<I1, O6>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5, I6, O6, I7, O7>(
  name: string,
  steps: readonly [
    Runnable<I1, O1>,
    Step<O1, I2, O2>,
    Step<O2, I3, O3>,
    Step<O3, I4, O4>,
    Step<O4, I5, O5>,
    Step<O5, I6, O6>,
    Step<O6, I7, O7>,
  ],
  options?: ChainOptions,
): WorkflowDefinition<I1, O7>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5, I6, O6, I7, O7, I8, O8>(
  name: string,
  steps: readonly [
    Runnable<I1, O1>,
    Step<O1, I2, O2>,
    Step<O2, I3, O3>,
    Step<O3, I4, O4>,
    Step<O4, I5, O5>,
    Step<O5, I6, O6>,
    Step<O6, I7, O7>,
    Step<O7, I8, O8>,
  ],
  options?: ChainOptions,
): WorkflowDefinition<I1, O8>;
/** For rows that are longer or made at run time: every step takes and gives `T`. */
export function chain<T>(name: string, steps: readonly Runnable<T, T>[], options?: ChainOptions): WorkflowDefinition<T, T>;
export function chain(name: string, given: readonly AnyStep[], options: ChainOptions = {}): WorkflowDefinition {
  const steps = given.map((step, index) => parseStep(step, `Step ${index + 1} of chain "${name}"`));
  const [first] = steps;
  if (!first) throw new InvalidDefinitionError(`Chain "${name}" has no steps; give at least one.`);
  return defineWorkflow({
    name,
    queue: options.queue ?? first.task.queue,
    ...(options.version !== undefined && { version: options.version }),
    handler: async (workflow, input: unknown) => {
      let value = input;
      for (const step of steps) value = await workflow.run(step.task, step.inputFrom(value));
      return value;
    },
  });
}

function parseStep(step: AnyStep, where: string): { task: Runnable<unknown, unknown>; inputFrom: (previous: unknown) => unknown } {
  const [task, bridge] = Array.isArray(step) ? (step as readonly [unknown, unknown?]) : [step];
  if (!isBranded(task)) {
    throw new InvalidDefinitionError(`${where} is not a task; give a task, a taskRef, [task, extra] or [task, (previous) => input].`);
  }
  const runnable = task as Runnable<unknown, unknown>;
  if (bridge === undefined) return { task: runnable, inputFrom: (previous) => previous };
  if (typeof bridge === "function") return { task: runnable, inputFrom: bridge as (previous: unknown) => unknown };
  return { task: runnable, inputFrom: (previous) => ({ ...(previous as object), ...(bridge as object) }) };
}
