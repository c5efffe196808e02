import type { Duration } from "../values/duration.ts";
import { parseDuration } from "../values/duration.ts";
import { InvalidArgumentError } from "../values/errors.ts";
import { checkName, checkOptions } from "./checks.ts";
import type { NativeOptions } from "./native.ts";
import { parsePriority, type Priority } from "../values/priority.ts";
import { parseRetry, type RetryOptions, type RetryPolicy } from "./retry.ts";
import type { Schema } from "./schema.ts";
import type { TaskContext } from "./task.ts";
import type { WorkflowContext } from "./workflow.ts";

const DEFINITION = Symbol.for("task-backend.definition");

/**
 * Something that can be submitted: it takes `In` and settles with `Out`.
 * The two members that start with `~` exist for types only.
 */
export interface Runnable<in In, out Out> {
  readonly kind: "task" | "workflow" | "ref";
  readonly name: string;
  /** Absent on a ref without a queue: the definition of this name decides, if the submitter or the worker has it, else "default". */
  readonly queue?: string;
  readonly priority?: Priority;
  readonly native?: NativeOptions;
  readonly "~in"?: (input: In) => void;
  readonly "~out"?: Out;
}

/** A task: a named handler with its policy. Made by `defineTask`. */
export interface TaskDefinition<in In = never, out Out = unknown> extends Runnable<In, Out> {
  readonly kind: "task";
  readonly queue: string;
  readonly schema?: Schema;
  readonly retry: RetryPolicy;
  /** The time limit of one attempt, in milliseconds. Absent: no limit. */
  readonly timeoutMs?: number;
  readonly handler: (input: never, context: TaskContext) => unknown;
}

/** A workflow: a named durable function. Made by `defineWorkflow`, `chain` or `dag`. */
export interface WorkflowDefinition<in In = never, out Out = unknown> extends Runnable<In, Out> {
  readonly kind: "workflow";
  readonly queue: string;
  readonly version: string;
  readonly schema?: Schema;
  readonly handler: (workflow: WorkflowContext, input: never) => unknown;
}

/** The name of a task or workflow whose code lives elsewhere, and optionally its queue. Made by `taskRef`. */
export interface TaskRef<in In = never, out Out = unknown> extends Runnable<In, Out> {
  readonly kind: "ref";
}

/** A definition that a worker can run. */
export type Definition = TaskDefinition | WorkflowDefinition;

/** The policy that an operator may set for a task name. It goes before the definition. */
export interface TaskPolicy {
  queue?: string;
  retry?: RetryOptions;
  timeout?: Duration;
  priority?: Priority;
}

/** Marks an object as made by one of our functions. Every copy of the package recognises the mark. */
export function brand<T extends object>(definition: T): T {
  return Object.freeze(Object.defineProperty(definition, DEFINITION, { value: true, enumerable: false }));
}

/** Whether a value is a task or workflow that a worker can run; a `taskRef` is not. */
export function isDefinition(value: unknown): value is Definition {
  return isBranded(value) && value.kind !== "ref";
}

/** Whether a value was made by `defineTask`, `defineWorkflow`, `chain`, `dag` or `taskRef`. */
export function isBranded(value: unknown): value is Runnable<never, unknown> {
  return typeof value === "object" && value !== null && Reflect.get(value, DEFINITION) === true;
}

/** `name` of a task, `name@version` of a workflow. It must be unique in a worker. */
export function definitionKey(definition: { kind: string; name: string; version?: string | undefined }): string {
  return definition.kind === "workflow" ? `${definition.name}@${definition.version}` : definition.name;
}

/**
 * Checks an operator's policy when it is given, before any task of its name is known.
 * @throws InvalidArgumentError naming the task and the option
 */
export function checkPolicy(policy: TaskPolicy, name: string): void {
  const where = policyOf(name);
  checkOptions(policy, ["queue", "retry", "timeout", "priority"], where, InvalidArgumentError);
  if (policy.queue !== undefined) checkName(policy.queue, `${where}: queue`, InvalidArgumentError);
  parsePriority(policy.priority, `${where}: priority`);
  parseRetry(policy.retry, `${where}: retry`);
  if (policy.timeout !== undefined) parseDuration(policy.timeout, `${where}: timeout`);
}

/**
 * A definition with the operator's policy applied: an option that the policy does not set stays as the definition sets it.
 * @throws InvalidArgumentError for a retry policy or timeout of a workflow, which can have neither
 */
export function withPolicy<D extends Runnable<never, unknown>>(definition: D, policy: TaskPolicy | undefined): D {
  if (!policy) return definition;
  const { queue, priority, retry, timeout } = policy;
  const where = policyOf(definition.name);
  if (definition.kind === "workflow" && (retry !== undefined || timeout !== undefined)) {
    throw new InvalidArgumentError(
      `${where} has ${retry === undefined ? "a timeout" : "retry"}, and "${definition.name}" is a workflow, which has none; give it to the tasks that it runs.`,
    );
  }
  const task = definition.kind === "task" ? (definition as unknown as TaskDefinition) : undefined;
  return brand({
    ...definition,
    ...(queue !== undefined && { queue }),
    ...(priority !== undefined && { priority }),
    ...(task && retry !== undefined && { retry: parseRetry(retry, `${where}: retry`, task.retry) }),
    ...(task && timeout !== undefined && { timeoutMs: parseDuration(timeout, `${where}: timeout`) }),
  });
}

function policyOf(name: string): string {
  return `The configured policy of "${name}"`;
}
