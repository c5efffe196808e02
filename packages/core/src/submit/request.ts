import type { Runnable, TaskDefinition, WorkflowDefinition } from "../define/definition.ts";
import type { DefinitionSpec, RunRequest } from "../port/port.ts";
import type { Headers, Json } from "../values/json.ts";
import { parsePriority, type Priority } from "../values/priority.ts";

/** What of a submission does not come from the definition. */
export interface RequestOptions {
  readonly queue?: string | undefined;
  readonly priority?: Priority | undefined;
  readonly headers?: Headers | undefined;
}

/** The definition as plain facts. */
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

/** The request for a new run, complete but for what only `submit` knows. */
export function runRequest(target: Runnable<never, unknown>, input: Json, options: RequestOptions): RunRequest {
  const definition = target.kind === "ref" ? undefined : (target as TaskDefinition | WorkflowDefinition);
  return {
    kind: target.kind === "workflow" ? "workflow" : "task",
    name: target.name,
    queue: options.queue ?? target.queue,
    input,
    headers: options.headers ?? {},
    priority: parsePriority(options.priority ?? target.priority, `The priority of "${target.name}"`),
    ...(definition?.kind === "workflow" && { version: definition.version }),
    ...(definition && { definition: specOf(definition) }),
    ...(target.native && { native: target.native }),
  };
}
