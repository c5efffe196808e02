import type { StandardSchemaV1 } from "@standard-schema/spec";
import { checkName, checkNative, checkOptions } from "./checks.ts";
import { brand, type TaskDefinition, type TaskRef } from "./definition.ts";
import { parseDuration, type Duration } from "../values/duration.ts";
import { InvalidDefinitionError } from "../values/errors.ts";
import type { Headers } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import type { NativeOptions } from "./native.ts";
import { parsePriority, type Priority } from "../values/priority.ts";
import { parseRetry, type RetryOptions } from "./retry.ts";
import type { Schema } from "./schema.ts";
import { show } from "../values/show.ts";

/** The second argument of a handler. */
export interface TaskContext {
  /** The id of the run. */
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  /** The number of this attempt: 1 for the first. */
  readonly attempt: number;
  readonly maxAttempts: number;
  /** Aborted on timeout, cancellation, worker stop and loss of the run; `reason` is the matching error. */
  readonly signal: AbortSignal;
  readonly headers: Headers;
  /** A logger that adds the run's id, name and attempt. */
  readonly log: Logger;
  /**
   * Replaces the progress that `getResult` shows. Any JSON value is allowed.
   * @throws InvalidPayloadError, PayloadTooLargeError
   */
  progress(value: unknown): void;
}

/** The options of every kind of definition. */
interface CommonOptions {
  /** The name, unique among the definitions of a worker. */
  name: string;
  /** Default: the priority of its workflow when it runs as a step, else `"normal"`. A submission may override it. */
  priority?: Priority;
  /** Passed to the engine untouched. Portable code needs none. */
  native?: NativeOptions;
}

interface RefOptions extends CommonOptions {
  /** Default: the queue of the definition of this name, if that is known, else `"default"`. */
  queue?: string;
}

interface TaskOptions extends CommonOptions {
  /** Default `"default"`. */
  queue?: string;
  /** Default: 3 attempts, exponential from 1 s, factor 2, at most 1 min, up to 25 % added. */
  retry?: RetryOptions;
  /** The time limit of one attempt; `ctx.signal` is aborted when it has passed. Default: no limit. */
  timeout?: Duration;
}

/**
 * Defines a task. Has no side effects: a worker can run it once it is registered or loaded.
 * @throws InvalidDefinitionError, InvalidArgumentError
 * @example
 * export const resize = defineTask({
 *   name: "resize",
 *   queue: "images",
 *   input: z.object({ url: z.string(), width: z.number() }),
 *   retry: { attempts: 5 },
 *   timeout: "30s",
 *   handler: async ({ url, width }, ctx) => ({ key: await store(url, width, ctx.signal) }),
 * });
 */
export function defineTask<S extends StandardSchemaV1, Out>(
  options: TaskOptions & {
    /** Any Standard Schema. Checked at submit, and parsed again in the worker. */
    input: S;
    handler: (input: StandardSchemaV1.InferOutput<S>, context: TaskContext) => Out;
  },
): TaskDefinition<StandardSchemaV1.InferInput<S>, Awaited<Out>>;
export function defineTask<In, Out>(
  options: TaskOptions & { input?: undefined; handler: (input: In, context: TaskContext) => Out },
): TaskDefinition<In, Awaited<Out>>;
export function defineTask(options: TaskOptions & { input?: Schema | undefined; handler: TaskDefinition["handler"] }): TaskDefinition {
  const where = whereOf("task", options);
  checkOptions(options, [...COMMON, "retry", "timeout", "input", "handler"], where, InvalidDefinitionError);
  return brand<TaskDefinition>({
    kind: "task",
    ...commonOf(options, where),
    queue: queueOf(options, where),
    retry: parseRetry(options.retry, `${where}: retry`),
    ...(options.timeout !== undefined && { timeoutMs: parseDuration(options.timeout, `${where}: timeout`) }),
    ...codeOf(options, where, "handler: async (input, ctx) => …"),
  });
}

/**
 * Names a task or workflow whose code lives elsewhere, so that it can be submitted and be a step. Without a queue it uses the queue
 * of the definition of this name, if the backend that submits it, or the worker that runs the workflow, has one.
 * @throws InvalidDefinitionError, InvalidArgumentError
 * @example
 * export const load = taskRef<Rows, Loaded>({ name: "load_data", queue: "warehouse" });
 */
export function taskRef<In = unknown, Out = unknown>(options: RefOptions): TaskRef<In, Out> {
  const where = whereOf("taskRef", options);
  checkOptions(options, COMMON, where, InvalidDefinitionError);
  return brand<TaskRef<In, Out>>({
    kind: "ref",
    ...commonOf(options, where),
    ...(options.queue !== undefined && { queue: queueOf(options, where) }),
  });
}

/** The options that every kind of definition has. */
export const COMMON: readonly string[] = ["name", "queue", "priority", "native"];

/** The name of a definition in messages. */
export function whereOf(kind: "task" | "workflow" | "taskRef", options: { name?: unknown } | null | undefined): string {
  const Kind = kind === "taskRef" ? kind : `${kind[0]?.toUpperCase()}${kind.slice(1)}`;
  return typeof options?.name === "string" ? `${Kind} ${show(options.name)}` : `The definition of a ${kind}`;
}

/** Checks the name, priority and engine options of any definition. */
export function commonOf(options: CommonOptions, where: string): { name: string; priority?: Priority; native?: NativeOptions } {
  const { priority } = options;
  const native = checkNative(options.native, `${where}: native`, InvalidDefinitionError);
  return {
    name: checkName(options.name, "A name"),
    ...(priority !== undefined && { priority: parsePriority(priority, `${where}: priority`) }),
    ...(native && { native }),
  };
}

export function queueOf({ queue = "default" }: { queue?: string }, where: string): string {
  return checkName(queue, `${where}: queue`);
}

/** Checks the schema and the handler of a definition. */
export function codeOf<H>(
  options: { input?: Schema | undefined; handler: H },
  where: string,
  example: string,
): { schema?: Schema; handler: H } {
  const { input, handler } = options;
  if (typeof handler !== "function") throw new InvalidDefinitionError(`${where} has no handler; give \`${example}\`.`);
  if (input === undefined) return { handler };
  const standard: unknown = (typeof input === "object" || typeof input === "function") && input !== null ? input["~standard"] : undefined;
  if (typeof (standard as Schema["~standard"] | undefined)?.validate !== "function") {
    throw new InvalidDefinitionError(
      `${where}: input is ${show(input)}; give a Standard Schema, as zod 3.24, valibot 1 and arktype 2 make them.`,
    );
  }
  return { schema: input, handler };
}
