import type { Duration } from "../values/duration.ts";
import { parseDuration } from "../values/duration.ts";
import { InvalidDefinitionError } from "../values/errors.ts";
import type { NativeOptions } from "./native.ts";
import { parsePriority, type Priority } from "../values/priority.ts";
import { parseRetry, type RetryOptions, type RetryPolicy } from "./retry.ts";
import type { Schema } from "./schema.ts";
import type { TaskContext } from "./task.ts";
import type { WorkflowContext } from "./workflow.ts";

const DEFINITION = Symbol.for("task-backend.definition");

/**
 * Something that can be submitted: takes `In`, settles with `Out`.
 * The two members that start with `~` exist for types only.
 */
export interface Runnable<in In, out Out> {
  readonly kind: "task" | "workflow" | "ref";
  readonly name: string;
  readonly queue: string;
  readonly priority?: Priority;
  readonly native?: NativeOptions;
  readonly "~in"?: (input: In) => void;
  readonly "~out"?: Out;
}

/** A task: a named handler with its policy. Made by `defineTask`. */
export interface TaskDefinition<in In = never, out Out = unknown> extends Runnable<In, Out> {
  readonly kind: "task";
  readonly schema?: Schema;
  readonly retry: RetryPolicy;
  /** Per attempt, in milliseconds. Absent: none. */
  readonly timeoutMs?: number;
  readonly handler: (input: never, context: TaskContext) => unknown;
}

/** A workflow: a named durable function. Made by `defineWorkflow`, `chain` or `dag`. */
export interface WorkflowDefinition<in In = never, out Out = unknown> extends Runnable<In, Out> {
  readonly kind: "workflow";
  readonly version: string;
  readonly schema?: Schema;
  readonly handler: (workflow: WorkflowContext, input: never) => unknown;
}

/** The name and queue of a task or workflow whose code lives elsewhere. Made by `taskRef`. */
export interface TaskRef<in In = never, out Out = unknown> extends Runnable<In, Out> {
  readonly kind: "ref";
}

/** What a worker can run. */
export type Definition = TaskDefinition | WorkflowDefinition;

/** What an operator may set per task name, over the definition. */
export interface TaskPolicy {
  queue?: string;
  retry?: RetryOptions;
  timeout?: Duration;
  priority?: Priority;
}

/** Marks an object as made by one of our functions, whichever copy of the package made it. */
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

/** `name` of a task, `name@version` of a workflow: what must be unique in a worker. */
export function definitionKey(definition: { kind: string; name: string; version?: string | undefined }): string {
  return definition.kind === "workflow" ? `${definition.name}@${definition.version}` : definition.name;
}

const NAME = /^[^\s\p{Cc}\p{Cs}@,](?:[^\p{Cc}\p{Cs}@,]{0,198}[^\s\p{Cc}\p{Cs}@,])?$/u;

/** @throws InvalidDefinitionError when a name or queue is empty, too long, or holds characters that engines reserve */
export function checkName(value: unknown, what: string): string {
  if (typeof value === "string" && NAME.test(value)) return value;
  throw new InvalidDefinitionError(
    `${what} is ${JSON.stringify(value)}; give 1 to 200 characters without "@", commas, control characters or blanks at the ends.`,
  );
}

/** A definition with the operator's policy over it. */
export function withPolicy<D extends Runnable<never, unknown>>(definition: D, policy: TaskPolicy | undefined): D {
  if (!policy) return definition;
  const where = `The configured policy of "${definition.name}"`;
  return brand({
    ...definition,
    ...(policy.queue !== undefined && { queue: checkName(policy.queue, `${where}: queue`) }),
    ...(policy.priority !== undefined && { priority: parsePriority(policy.priority, `${where}: priority`) }),
    ...(policy.retry !== undefined && definition.kind === "task" && { retry: parseRetry(policy.retry, `${where}: retry`) }),
    ...(policy.timeout !== undefined && definition.kind === "task" && { timeoutMs: parseDuration(policy.timeout, `${where}: timeout`) }),
  });
}
