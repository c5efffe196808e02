import { NonRetryableError } from "@hatchet-dev/typescript-sdk/v1/task.js";
import type { ErrorRecord, Headers, Json, Priority, RunRequest, RunStatus } from "@task-backend/core/adapter";

/*
 * What travels through Hatchet beside inputs and outputs.
 */

/** In the additional metadata of a run, under `taskBackend`. */
export interface Meta {
  /** What the submitter knew. Absent by name only. */
  readonly kind?: "task" | "workflow";
  /** As it is written: Hatchet's own names are in lower case. */
  readonly name: string;
  readonly queue: string;
  readonly version?: string;
  readonly headers?: Headers;
  readonly submittedAtMs: number;
  readonly runAtMs?: number;
  /** The input was no object, which is all that Hatchet takes. */
  readonly wrapped?: true;
}

export const META = "taskBackend";

export function toMeta({ kind, definition, name, queue, version, headers, runAtMs, input }: RunRequest): Meta {
  return {
    ...((kind === "workflow" || definition) && { kind }),
    name,
    queue,
    submittedAtMs: Date.now(),
    ...(version !== undefined && { version }),
    ...(Object.keys(headers).length > 0 && { headers }),
    ...(runAtMs !== undefined && { runAtMs }),
    ...(!isObject(input) && { wrapped: true as const }),
  };
}

export function isObject(value: unknown): value is { readonly [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Of a run that others started, what can be known. */
export function metaOf(metadata: unknown, name: string): Meta {
  const text = isObject(metadata) ? metadata[META] : undefined;
  if (typeof text === "string") return JSON.parse(text) as Meta;
  return { name, queue: "default", submittedAtMs: 0 };
}

export function toInput({ input }: Pick<RunRequest, "input">): { readonly [key: string]: Json } {
  return isObject(input) ? input : { value: input };
}

export function fromInput(input: unknown, { wrapped }: Meta): Json {
  return sorted(wrapped ? ((input as { value: Json }).value ?? null) : (input as Json));
}

/**
 * With the keys of its objects in an order of ours. Hatchet brings a payload as it was sent while it is fresh, and as `jsonb` orders it
 * when it comes from its tables: a workflow that is run again must see what it saw.
 */
export function sorted<T extends Json>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted) as unknown as T;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, sorted(inner)])) as T;
}

/** Hatchet knows three levels. */
export function toPriority(priority: Priority): 1 | 2 | 3 {
  return priority === "low" ? 1 : priority === "normal" ? 2 : 3;
}

/** What a run returns: the output, and what Hatchet has no field for. */
export interface Settled {
  readonly attempts: number;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly progress?: Json;
}

export interface Returned {
  readonly output: Json;
  readonly taskBackend: Settled;
}

/** In the stack of the error that a run throws at the end, after its own. */
export interface Thrown extends Settled {
  readonly status: RunStatus;
  readonly error: ErrorRecord;
}

const MARK = "\n@task-backend ";

/** What the SDK sends of it: message and stack, and that it is final. */
export function toThrown(thrown: Thrown): Error {
  const { stack, ...error } = thrown.error;
  const failure = new NonRetryableError(error.message);
  failure.name = error.name;
  failure.stack = `${stack ?? `${error.name}: ${error.message}`}${MARK}${JSON.stringify({ ...thrown, error })}`;
  return failure;
}

/** Of the text that Hatchet keeps as a run's error. */
export function fromThrown(text: string): Thrown | { readonly message: string } {
  let message = text;
  let stack = "";
  try {
    ({ message = text, stack = "" } = JSON.parse(text) as { message?: string; stack?: string });
  } catch {
    // Not of the SDK.
  }
  const at = stack.lastIndexOf(MARK);
  if (at === -1) return { message };
  const thrown = JSON.parse(stack.slice(at + MARK.length)) as Thrown;
  return { ...thrown, error: { ...thrown.error, stack: stack.slice(0, at) } };
}

/** In the metadata of a run's log lines, under `taskBackend`: what others may read while it goes on. */
export type Note =
  | {
      readonly type: "failed";
      readonly attempt: number;
      readonly error: ErrorRecord;
      readonly startedAtMs: number;
    }
  | { readonly type: "released"; readonly attempt: number }
  | { readonly type: "started"; readonly attempt: number }
  | { readonly type: "progress"; readonly value: Json }
  /** It was given back to the engine, with so much of what it waits for seen. */
  | { readonly type: "left"; readonly known: number }
  | { readonly type: "workflow" }
  | { readonly type: "parked"; readonly error?: ErrorRecord }
  /** The engine was about to be told to end it. When its attempt had begun is there if one had. */
  | { readonly type: "cancel"; readonly atMs: number; readonly startedAtMs?: number }
  /** The worker has heard that it is cancelled: nothing else will come of it. */
  | { readonly type: "aborted" }
  | { readonly type: "resumed" };

/** The key of the events that wake a workflow. */
export function wakeKey(runId: string): string {
  return `task-backend/${runId}`;
}

/** The payload of such an event. */
export interface Wake {
  readonly id: string;
  readonly atMs: number;
  /** Absent: only to look again. */
  readonly entry?:
    { readonly type: "signal"; readonly name: string; readonly payload: Json; readonly dedupeId?: string } | { readonly type: "cancel" };
}
