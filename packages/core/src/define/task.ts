import type { StandardSchemaV1 } from "@standard-schema/spec";
import { brand, checkName, type TaskDefinition, type TaskRef } from "./definition.ts";
import { parseDuration, type Duration } from "../values/duration.ts";
import { InvalidDefinitionError } from "../values/errors.ts";
import type { Headers } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import type { NativeOptions } from "./native.ts";
import { parsePriority, type Priority } from "../values/priority.ts";
import { parseRetry, type RetryOptions } from "./retry.ts";
import type { Schema } from "./schema.ts";

/** What a handler is given beside its input. */
export interface TaskContext {
  /** Of the run. */
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  /** 1 for the first. */
  readonly attempt: number;
  readonly maxAttempts: number;
  /** Aborted on timeout, cancellation, worker stop and loss of the run; `reason` is the matching error. */
  readonly signal: AbortSignal;
  readonly headers: Headers;
  /** Carries the run's id, name and attempt. */
  readonly log: Logger;
  /**
   * Replaces the progress that `getResult` shows, with any JSON.
   * @throws InvalidPayloadError, PayloadTooLargeError
   */
  progress(value: unknown): void;
}

interface CommonOptions {
  /** Unique among the definitions of a worker. */
  name: string;
  /** Default `"default"`. */
  queue?: string;
  /** Default `"normal"`; a submission may say otherwise. */
  priority?: Priority;
  /** Passed to the engine untouched. Portable code needs none. */
  native?: NativeOptions;
}

interface TaskOptions extends CommonOptions {
  /** Default: 3 attempts, exponential from 1 s, factor 2, at most 1 min, up to 25 % added. */
  retry?: RetryOptions;
  /** Of one attempt; its signal is aborted then. Default: none. */
  timeout?: Duration;
}

/**
 * Defines a task. Has no side effects: a worker runs it once it is registered or loaded.
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
  const name = checkName(options.name, "The name of a task");
  if (typeof options.handler !== "function")
    throw new InvalidDefinitionError(`Task "${name}" has no handler; give \`handler: async (input, ctx) => …\`.`);
  return brand<TaskDefinition>({
    kind: "task",
    ...commonOf(options, `Task "${name}"`),
    retry: parseRetry(options.retry, `Task "${name}": retry`),
    ...(options.timeout !== undefined && { timeoutMs: parseDuration(options.timeout, `Task "${name}": timeout`) }),
    ...(options.input && { schema: options.input }),
    handler: options.handler,
  });
}

/**
 * Names a task or workflow whose code lives elsewhere, so that it can be submitted and be a step.
 * @throws InvalidDefinitionError, InvalidArgumentError
 * @example
 * export const load = taskRef<Rows, Loaded>({ name: "load_data", queue: "warehouse" });
 */
export function taskRef<In = unknown, Out = unknown>(options: CommonOptions): TaskRef<In, Out> {
  return brand({ kind: "ref", ...commonOf(options, `taskRef "${options.name}"`) });
}

/** The options that every kind of definition shares, checked. */
export function commonOf(
  options: CommonOptions,
  where: string,
): { name: string; queue: string; priority?: Priority; native?: NativeOptions } {
  return {
    name: checkName(options.name, "A name"),
    queue: checkName(options.queue ?? "default", `${where}: queue`),
    ...(options.priority && { priority: parsePriority(options.priority, `${where}: priority`) }),
    ...(options.native && { native: options.native }),
  };
}
