import type { StandardSchemaV1 } from "@standard-schema/spec";
import { checkHeaders, checkKey, checkName, checkOptions } from "./checks.ts";
import { brand, type Runnable, type WorkflowDefinition } from "./definition.ts";
import type { Duration } from "../values/duration.ts";
import { InvalidArgumentError, InvalidDefinitionError } from "../values/errors.ts";
import type { Headers, Json } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import type { NativeOptions } from "./native.ts";
import type { Priority } from "../values/priority.ts";
import type { Schema } from "./schema.ts";
import { codeOf, COMMON, commonOf, queueOf, whereOf } from "./task.ts";

/** Options of a step that differ from its definition. */
export interface StepOptions {
  queue?: string;
  /** Default: the priority of the definition if it has one, else the priority of the workflow's run. */
  priority?: Priority;
  /** Merged over the workflow's own headers. */
  headers?: Headers;
}

/**
 * The functions that a workflow uses. After a crash the workflow function is run again from the top, and each call below then
 * returns what it returned before. So between these calls the function must decide the same way each time: no clock, no
 * randomness, no I/O of its own.
 */
export interface WorkflowContext {
  /** The id of the run. */
  readonly id: string;
  readonly name: string;
  readonly version: string;
  readonly headers: Headers;
  /** A logger that is silent while the function is replayed. */
  readonly log: Logger;
  /**
   * Runs a task or workflow on its own queue, with its own retry policy, and waits for its output.
   * Rejects with TaskFailedError, TaskTimedOutError or TaskCancelledError; InvalidPayloadError when the input is not JSON.
   */
  run<In, Out>(task: Runnable<In, Out>, input: NoInfer<In>, options?: StepOptions): Promise<Out>;
  /** Resolves after the duration, never early; it survives every worker being down. */
  sleep(duration: Duration): Promise<void>;
  /**
   * Resolves with the payload of the next signal of this name, including one that was sent before.
   * Rejects with WaitTimeoutError when `timeout` passes first.
   */
  waitForSignal<T = Json>(name: string, options?: { timeout?: Duration }): Promise<T>;
  /** Milliseconds since 1970: the recorded time of the latest event. The same at each replay. */
  now(): number;
  /** A number from 0 to 1, seeded by the run's id. The same at each replay. */
  random(): number;
}

/** @throws InvalidArgumentError; a step is checked like a submission */
export function checkStepOptions(options: StepOptions, where: string): void {
  checkOptions(options, ["queue", "priority", "headers"], `The options of ${where}`, InvalidArgumentError);
  if (options.queue !== undefined) checkName(options.queue, `The queue of ${where}`, InvalidArgumentError);
  checkHeaders(options.headers, where);
}

/** @throws InvalidArgumentError */
export function checkWait(signal: string, options: { timeout?: Duration }): void {
  checkKey(signal, "The name of a signal that wf.waitForSignal waits for");
  checkOptions(options, ["timeout"], `The options of wf.waitForSignal("${signal}")`, InvalidArgumentError);
}

interface WorkflowOptions {
  /** The name; with the version it is unique among the definitions of a worker. */
  name: string;
  /** Change it when the steps change while runs are in flight: a run stays on the version it started with. Default `"1"`. */
  version?: string;
  /** Default `"default"`. */
  queue?: string;
  priority?: Priority;
  native?: NativeOptions;
}

/**
 * Defines a workflow: an async function over tasks that survives crashes by replay.
 * @throws InvalidDefinitionError, InvalidArgumentError
 * @example
 * export const publish = defineWorkflow({
 *   name: "publish",
 *   input: z.object({ topic: z.string() }),
 *   handler: async (wf, { topic }) => {
 *     const draft = await wf.run(write, { topic });
 *     await wf.waitForSignal("approved", { timeout: "7d" });
 *     return wf.run(upload, draft);
 *   },
 * });
 */
export function defineWorkflow<S extends StandardSchemaV1, Out>(
  options: WorkflowOptions & {
    /** Any Standard Schema. Checked at submit, and parsed again in the worker. */
    input: S;
    handler: (workflow: WorkflowContext, input: StandardSchemaV1.InferOutput<S>) => Out;
  },
): WorkflowDefinition<StandardSchemaV1.InferInput<S>, Awaited<Out>>;
export function defineWorkflow<In, Out>(
  options: WorkflowOptions & { input?: undefined; handler: (workflow: WorkflowContext, input: In) => Out },
): WorkflowDefinition<In, Awaited<Out>>;
export function defineWorkflow(
  options: WorkflowOptions & { input?: Schema | undefined; handler: WorkflowDefinition["handler"] },
): WorkflowDefinition {
  const where = whereOf("workflow", options);
  checkOptions(options, [...COMMON, "version", "input", "handler"], where, InvalidDefinitionError);
  return brand<WorkflowDefinition>({
    kind: "workflow",
    ...commonOf(options, where),
    queue: queueOf(options, where),
    version: checkName(options.version === undefined ? "1" : options.version, `${where}: version`),
    ...codeOf(options, where, "handler: async (wf, input) => …"),
  });
}
