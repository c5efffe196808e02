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
 * The data that travels through Hatchet beside inputs and outputs.
 */

/** The data in a run's additional metadata, under `taskBackend`. */
export interface Meta {
  /** The kind, as the submitter knew it. Absent if submitted by name only. */
  readonly kind?: "task" | "workflow" | undefined;
  /** The name in its original spelling: Hatchet's own names are in lower case. */
  readonly name: string;
  readonly queue: string;
  readonly version?: string | undefined;
  readonly headers?: Headers | undefined;
  /** The original priority: Hatchet has only three levels. Absent: normal. */
  readonly priority?: Priority | undefined;
  readonly submittedAtMs: number;
  readonly runAtMs?: number | undefined;
  /** The input was not an object, so it was wrapped in one: Hatchet accepts only objects. */
  readonly wrapped?: true | undefined;
  /** The namespace of the submitting backend: backends of other namespaces do not see the run. */
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

/** The metadata of a run, and the error if it could not be read. */
export interface ReadMeta {
  readonly meta: Meta;
  readonly damage?: Error;
}

/** Reads a run's metadata; of a run that others started, as much as is known. Never throws: a damaged run must not block others. */
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
 * Sorts the keys of all objects. Hatchet returns a fresh payload as it was sent, and a stored one in the order of `jsonb`, but a
 * replayed workflow must see the same order as before.
 */
export function sorted<T extends Json>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted) as unknown as T;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, sorted(inner)])) as T;
}

/** Hatchet's priority, of three levels. */
export function toPriority(priority: Priority): 1 | 2 | 3 {
  return priority === "low" ? 1 : priority === "normal" ? 2 : 3;
}

/** The facts about a settled run that Hatchet has no field for. */
export interface Settled {
  readonly attempts: number;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly progress?: Json;
  /** The ids of signals that a workflow saw shortly before its end. A sender looks for its signal here. */
  readonly heard?: readonly string[];
}

export interface Returned {
  readonly output: Json;
  readonly taskBackend: Settled;
}

/** The data that a failed run's error carries at the end of its stack. */
export interface Thrown extends Settled {
  readonly status: RunStatus;
  readonly error: ErrorRecord;
}

const MARK = "\n@task-backend ";

/** An error whose message and stack the SDK sends, marked as final. */
export function toThrown(thrown: Thrown): Error {
  const { stack, ...error } = thrown.error;
  const failure = new NonRetryableError(error.message);
  failure.name = error.name;
  failure.stack = `${stack ?? `${error.name}: ${error.message}`}${MARK}${JSON.stringify({ ...thrown, error })}`;
  return failure;
}

/** Reads the text that Hatchet keeps as a run's error. */
export function fromThrown(text: string): Thrown | { readonly message: string } {
  let message = text;
  let stack = "";
  try {
    ({ message = text, stack = "" } = JSON.parse(text) as { message?: string; stack?: string });
  } catch {
    // The text is not from the SDK.
  }
  const at = stack.lastIndexOf(MARK);
  if (at === -1) return { message };
  try {
    const thrown = JSON.parse(stack.slice(at + MARK.length)) as Thrown;
    return { ...thrown, error: { ...thrown.error, stack: stack.slice(0, at) } };
  } catch {
    // The text was cut off, or another program wrote it.
    return { message };
  }
}

/**
 * A note in the metadata of a run's log lines, under `taskBackend`: others write notes for a run, and read notes of it while it
 * runs. The server keeps them in the order in which they came, and each later reader sees them.
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
  /** The run was left to the engine; `known` is the number of completed waits that it had seen. */
  | { readonly type: "left"; readonly known: number }
  /** A worker has started the run as this kind. A workflow keeps the version of its first such note. */
  | { readonly type: "began"; readonly kind: "task" | "workflow"; readonly version?: string }
  /** The workflow's function has ended, and its worker looks for signals once more. */
  | { readonly type: "ending" }
  /** The worker found signals, and the function goes on. */
  | { readonly type: "goes-on" }
  | { readonly type: "parked"; readonly error?: ErrorRecord }
  | { readonly type: "signal"; readonly id: string; readonly name: string; readonly payload: Json; readonly dedupeId?: string }
  /** `startedAtMs` is the start of a task's attempt, if there was one. */
  | { readonly type: "cancel"; readonly id: string; readonly atMs: number; readonly startedAtMs?: number }
  /** The worker knows that the run is cancelled: it will report no other outcome. */
  | { readonly type: "aborted" }
  /** The server did not acknowledge the n-th entry of the run's durable log. */
  | { readonly type: "unanswered"; readonly at: number }
  | { readonly type: "resumed" };

/** A note, with its time by the server's clock. */
export type ReadNote = Note & { readonly seenAtMs: number };

/** A signal or a cancellation of a workflow. */
export type Sent = Extract<Note, { type: "signal" | "cancel" }> & { readonly seenAtMs: number };

/** The key of the events that wake a workflow. */
export function wakeKey(runId: string): string {
  return `task-backend/${runId}`;
}
