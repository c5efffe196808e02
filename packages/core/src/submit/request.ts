import { checkKey, checkName, checkNative, checkOptions } from "../define/checks.ts";
import { InvalidArgumentError } from "../values/errors.ts";
import { parseDuration } from "../values/duration.ts";
import { show } from "../values/show.ts";
import type { SubmitOptions } from "./backend.ts";
import type { Runnable, TaskDefinition, WorkflowDefinition } from "../define/definition.ts";
import type { DefinitionSpec, RunRequest } from "../port/port.ts";
import type { Headers, Json } from "../values/json.ts";
import { parsePriority, type Priority } from "../values/priority.ts";

/** The parts of a submission that do not come from the definition. */
export interface RequestOptions {
  readonly queue?: string | undefined;
  readonly priority?: Priority | undefined;
  readonly headers?: Headers | undefined;
}

/** The facts about a definition, without its code. */
export function specOf(definition: TaskDefinition | WorkflowDefinition): DefinitionSpec {
  return {
    kind: definition.kind,
    name: definition.name,
    queue: definition.queue,
    ...(definition.kind === "workflow" ? { version: definition.version } : { retry: definition.retry }),
    ...(definition.kind === "task" && definition.timeoutMs !== undefined && { timeoutMs: definition.timeoutMs }),
    ...(definition.native && { native: definition.native }),
  };
}

/** The request for a new run, without the parts that only `submit` knows. */
export function runRequest(target: Runnable<never, unknown>, input: Json, options: RequestOptions): RunRequest {
  const { queue = target.queue ?? "default", priority = target.priority } = options;
  const definition = target.kind === "ref" ? undefined : (target as TaskDefinition | WorkflowDefinition);
  return {
    kind: target.kind === "workflow" ? "workflow" : "task",
    name: target.name,
    queue,
    input,
    headers: options.headers ?? {},
    priority: parsePriority(priority, `The priority of "${target.name}"`),
    ...(definition?.kind === "workflow" && { version: definition.version }),
    ...(definition && { definition: specOf(definition) }),
    ...(target.native && { native: target.native }),
  };
}

const SUBMIT_OPTIONS = ["queue", "priority", "delay", "runAt", "idempotencyKey", "headers", "native"];

/** @throws InvalidArgumentError; the headers are checked elsewhere, with the engine's capabilities */
export function checkSubmitOptions(options: SubmitOptions, name: string): void {
  checkOptions(options, SUBMIT_OPTIONS, `A submission of "${name}"`, InvalidArgumentError);
  const { queue, idempotencyKey, native } = options;
  if (queue !== undefined) checkName(queue, `The queue of "${name}"`, InvalidArgumentError);
  if (idempotencyKey !== undefined) checkKey(idempotencyKey, `The idempotencyKey of "${name}"`);
  checkNative(native, `The native options of "${name}"`, InvalidArgumentError);
}

/** When a submission is due, in milliseconds since 1970; undefined when it has no delay and no time. @throws InvalidArgumentError */
export function runAtOf({ delay, runAt }: SubmitOptions, name: string): number | undefined {
  if (delay !== undefined && runAt !== undefined) throw new InvalidArgumentError(`"${name}" was given delay and runAt; give one of them.`);
  if (delay !== undefined) {
    const delayMs = parseDuration(delay, `The delay of "${name}"`);
    return delayMs === 0 ? undefined : Date.now() + delayMs;
  }
  if (runAt === undefined) return undefined;
  const runAtMs = runAt instanceof Date ? runAt.getTime() : Number.NaN;
  if (Number.isNaN(runAtMs)) {
    const given = runAt instanceof Date ? "an invalid date" : show(runAt);
    throw new InvalidArgumentError(`The runAt of "${name}" is ${given}; give a valid Date.`);
  }
  const inMs = runAtMs - Date.now();
  if (inMs > 0) parseDuration(inMs, `The time until runAt of "${name}"`);
  return inMs <= 0 ? undefined : runAtMs;
}
