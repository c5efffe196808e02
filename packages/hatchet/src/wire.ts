import { NonRetryableError } from "@hatchet-dev/typescript-sdk/v1/task.js";
import {
  PRIORITIES,
  type ErrorRecord,
  type Headers,
  type Json,
  type Priority,
  type RunRequest,
  type RunStatus,
} from "@task-backend/core/adapter";
import { z } from "zod";

/*
 * What travels through Hatchet beside inputs and outputs.
 */

/** In the additional metadata of a run, under `taskBackend`. */
export interface Meta {
  /** What the submitter knew. Absent by name only. */
  readonly kind?: "task" | "workflow" | undefined;
  /** As it is written: Hatchet's own names are in lower case. */
  readonly name: string;
  readonly queue: string;
  readonly version?: string | undefined;
  readonly headers?: Headers | undefined;
  /** Hatchet knows three levels of the five. Absent: normal. */
  readonly priority?: Priority | undefined;
  readonly submittedAtMs: number;
  readonly runAtMs?: number | undefined;
  /** The input was no object, which is all that Hatchet takes. */
  readonly wrapped?: true | undefined;
  /** Of the backend that submitted it: backends of other namespaces do not see it. */
  readonly namespace?: string | undefined;
}

export const META = "taskBackend";

const metaSchema: z.ZodType<Meta> = z.object({
  kind: z.enum(["task", "workflow"]).optional(),
  name: z.string(),
  queue: z.string(),
  version: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  priority: z.enum(PRIORITIES).optional(),
  submittedAtMs: z.number(),
  runAtMs: z.number().optional(),
  wrapped: z.literal(true).optional(),
  namespace: z.string().optional(),
});

export function toMeta({ kind, definition, name, queue, version, headers, priority, runAtMs, input }: RunRequest, namespace: string): Meta {
  return {
    ...((kind === "workflow" || definition) && { kind }),
    name,
    queue,
    submittedAtMs: Date.now(),
    ...(version !== undefined && { version }),
    ...(Object.keys(headers).length > 0 && { headers }),
    ...(priority !== "normal" && { priority }),
    ...(runAtMs !== undefined && { runAtMs }),
    ...(!isObject(input) && { wrapped: true as const }),
    ...(namespace !== "" && { namespace }),
  };
}

/** What a run says of itself, and whether that could be read. */
export interface ReadMeta {
  readonly meta: Meta;
  readonly damage?: Error;
}

/** Of a run that others started, what can be known. Never throws: one damaged run must not hold up the others. */
export function readMeta(metadata: unknown, name: string): ReadMeta {
  const unknown: Meta = { name, queue: "default", submittedAtMs: 0 };
  const text = isObject(metadata) ? metadata[META] : undefined;
  if (text === undefined) return { meta: unknown };
  try {
    return { meta: metaSchema.parse(typeof text === "string" ? JSON.parse(text) : text) };
  } catch (error) {
    return { meta: unknown, damage: error as Error };
  }
}

export function isObject(value: unknown): value is { readonly [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function toInput({ input }: Pick<RunRequest, "input">): { readonly [key: string]: Json } {
  return isObject(input) ? input : { value: input };
}

export function fromInput(input: unknown, { wrapped }: Meta): Json {
  return sorted((wrapped && isObject(input) ? input["value"] : (input as Json | undefined)) ?? null);
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
  /** Signals that a workflow has seen shortly before its end, by their ids. Who has sent one meanwhile looks for it here. */
  readonly heard?: readonly string[];
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
  try {
    const thrown = JSON.parse(stack.slice(at + MARK.length)) as Thrown;
    return { ...thrown, error: { ...thrown.error, stack: stack.slice(0, at) } };
  } catch {
    // Cut off, or written by something else.
    return { message };
  }
}

/**
 * In the metadata of a run's log lines, under `taskBackend`: what others write for a run, and what others may read while it
 * goes on. The server keeps them in the order in which they came, and whoever reads afterwards sees them.
 */
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
  /** It was left to the engine, with so much of what it waits for seen. */
  | { readonly type: "left"; readonly known: number }
  /** A worker has taken it for what it is. For a workflow the first one says which version it is from now on. */
  | { readonly type: "began"; readonly kind: "task" | "workflow"; readonly version?: string }
  /** The workflow's function has ended, and its worker looks for signals once more. */
  | { readonly type: "ending" }
  /** It has found some. */
  | { readonly type: "goes-on" }
  | { readonly type: "parked"; readonly error?: ErrorRecord }
  | { readonly type: "signal"; readonly id: string; readonly name: string; readonly payload: Json; readonly dedupeId?: string }
  /** When a task's attempt had begun is there if one had. */
  | { readonly type: "cancel"; readonly id: string; readonly atMs: number; readonly startedAtMs?: number }
  /** The worker has heard that it is cancelled: nothing else will come of it. */
  | { readonly type: "aborted" }
  /** The server did not answer what was written as the n-th entry of the run's durable log. */
  | { readonly type: "unanswered"; readonly at: number }
  | { readonly type: "resumed" };

/** A note, with when it came by the server's clock. */
export type ReadNote = Note & { readonly seenAtMs: number };

/** What was sent to a workflow. */
export type Sent = Extract<Note, { type: "signal" | "cancel" }> & { readonly seenAtMs: number };

/** The key of the events that wake a workflow. */
export function wakeKey(runId: string): string {
  return `task-backend/${runId}`;
}
