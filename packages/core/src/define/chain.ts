import type { Runnable, WorkflowDefinition } from "./definition.ts";
import { isBranded } from "./definition.ts";
import { checkOptions } from "./checks.ts";
import { InvalidDefinitionError } from "../values/errors.ts";
import { fromStep } from "../values/origin.ts";
import { isPlainObject, show } from "../values/show.ts";
import { defineWorkflow } from "./workflow.ts";

/** The properties of `Next` that `Previous` does not already hold in a fitting type. */
type Missing<Previous, Next> = {
  [K in keyof Next as K extends keyof Previous ? (Previous[K] extends Next[K] ? never : K) : K]: Next[K];
} & Partial<Next>;

/** The second item of a step: properties merged over the previous output, or a function of the previous output. */
type Bridge<Previous, Next> =
  ((previous: Previous) => Next) | (Previous extends object ? (Next extends object ? Missing<Previous, Next> : never) : never);

type Step<Previous, In, Out> = Runnable<Previous, Out> | readonly [task: Runnable<In, Out>, input: Bridge<Previous, NoInfer<In>>];

/** The second item of the first step: properties merged over the chain's input, or a function of the chain's input. */
type FirstBridge<In> = ((input: never) => In) | (In extends object ? Partial<In> : never);

/** Forbids properties that the first task does not take. */
type OnlyKnown<In, B> = B extends (input: never) => unknown ? unknown : { readonly [K in Exclude<keyof B, keyof In>]: never };

type First<In, B, Out> = Runnable<In, Out> | readonly [task: Runnable<In, Out>, input: B & OnlyKnown<In, B>];

/** The input of the chain: the first task's input without the properties given beside it, or the function's argument. */
type InputOf<In, B> = [B] extends [never] ? In : B extends (input: infer Given) => unknown ? Given : Rest<In, keyof B>;

type Rest<In, K extends PropertyKey> = In extends unknown ? ([Exclude<keyof In, K>] extends [never] ? object | null : Omit<In, K>) : never;

type AnyStep = Runnable<never, unknown> | readonly [task: Runnable<never, unknown>, input: object | ((previous: never) => unknown)];

/** The queue and the version of a chain. */
export interface ChainOptions {
  /** The queue of the chain itself; its steps keep theirs. Default: the queue of its first step, if that names one. */
  queue?: string;
  /** Default `"1"`. */
  version?: string;
}

/**
 * A workflow of steps in a row. Each step gets the output of the one before.
 * A step is a task (or `taskRef`, or workflow), `[task, extra]` to merge properties over the previous output,
 * or `[task, (previous) => input]`. Properties beside the first task are merged over the input of the chain, and a function beside
 * it gets that input: `[task, (input: Order) => …]`. Steps that do not fit each other do not compile.
 * A failing step settles the run, and `error.step` names it; later steps never start.
 * @throws InvalidDefinitionError
 * @example
 * export const pipeline = chain("data_pipeline", [extract, transform, [load, { target: "warehouse" }]]);
 */
export function chain<I1, O1, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [First<I1, B, O1>],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O1>;
export function chain<I1, O1, I2, O2, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [First<I1, B, O1>, Step<O1, I2, O2>],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O2>;
export function chain<I1, O1, I2, O2, I3, O3, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [First<I1, B, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O3>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [First<I1, B, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>, Step<O3, I4, O4>],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O4>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [First<I1, B, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>, Step<O3, I4, O4>, Step<O4, I5, O5>],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O5>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5, I6, O6, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [First<I1, B, O1>, Step<O1, I2, O2>, Step<O2, I3, O3>, Step<O3, I4, O4>, Step<O4, I5, O5>, Step<O5, I6, O6>],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O6>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5, I6, O6, I7, O7, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [
    First<I1, B, O1>,
    Step<O1, I2, O2>,
    Step<O2, I3, O3>,
    Step<O3, I4, O4>,
    Step<O4, I5, O5>,
    Step<O5, I6, O6>,
    Step<O6, I7, O7>,
  ],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O7>;
export function chain<I1, O1, I2, O2, I3, O3, I4, O4, I5, O5, I6, O6, I7, O7, I8, O8, B extends FirstBridge<I1> = never>(
  name: string,
  steps: readonly [
    First<I1, B, O1>,
    Step<O1, I2, O2>,
    Step<O2, I3, O3>,
    Step<O3, I4, O4>,
    Step<O4, I5, O5>,
    Step<O5, I6, O6>,
    Step<O6, I7, O7>,
    Step<O7, I8, O8>,
  ],
  options?: ChainOptions,
): WorkflowDefinition<InputOf<I1, B>, O8>;
/** For rows of steps that are longer or made at run time: every step takes and returns `T`. */
export function chain<T>(name: string, steps: readonly Runnable<T, T>[], options?: ChainOptions): WorkflowDefinition<T, T>;
export function chain(name: string, given: readonly AnyStep[], options: ChainOptions = {}): WorkflowDefinition {
  const where = `Chain ${show(name)}`;
  checkCompositionOptions(options, where);
  if (!Array.isArray(given)) throw new InvalidDefinitionError(`The steps of chain ${show(name)} are ${show(given)}; give an array.`);
  const steps = given.map((step, index) => parseStep(step as AnyStep, `Step ${index + 1} of chain ${show(name)}`));
  const [first] = steps;
  if (!first) throw new InvalidDefinitionError(`${where} has no steps; give at least one.`);
  const { queue = first.task.queue, version } = options;
  return defineWorkflow({
    name,
    ...(queue !== undefined && { queue }),
    ...(version !== undefined && { version }),
    handler: async (workflow, input: unknown) => {
      let value = input;
      for (const { task, inputFrom } of steps) value = await workflow.run(task, inputFrom(value));
      return value;
    },
  });
}

/** Checks the options of a chain or a dag; their names and handlers are not among them. */
export function checkCompositionOptions(options: ChainOptions, where: string): void {
  checkOptions(options, ["queue", "version"], `${where}: options`, InvalidDefinitionError);
}

function parseStep(step: AnyStep, where: string): { task: Runnable<unknown, unknown>; inputFrom: (previous: unknown) => unknown } {
  const [task, bridge, ...more] = Array.isArray(step) ? (step as readonly unknown[]) : [step];
  if (!isBranded(task) || more.length > 0) {
    throw new InvalidDefinitionError(`${where} is not a task; give a task, a taskRef, [task, extra] or [task, (previous) => input].`);
  }
  const runnable = task as Runnable<unknown, unknown>;
  if (bridge === undefined) return { task: runnable, inputFrom: (previous) => previous };
  if (typeof bridge === "function") {
    const inputFrom = (previous: unknown): unknown => {
      try {
        return (bridge as (previous: unknown) => unknown)(previous);
      } catch (thrown) {
        throw fromStep(thrown, runnable.name);
      }
    };
    return { task: runnable, inputFrom };
  }
  if (!isPlainObject(bridge)) {
    throw new InvalidDefinitionError(
      `${where} has ${show(bridge)} beside its task; give an object of properties, or a function of the previous output.`,
    );
  }
  return { task: runnable, inputFrom: (previous) => ({ ...(previous as object), ...bridge }) };
}
