import type { ErrorRecord, Headers, JournalEntry, Json, RunRequest, RunStatus, TickResult } from "@task-backend/core/adapter";

/*
 * What travels through Temporal beside inputs and outputs. The interpreter in the sandbox shares it: no imports but types.
 */

/** The second argument of our activities and workflows; the first is the input, in clear. */
export interface Meta {
  /** What the submitter knew. Absent by name only, and when others start it. */
  readonly kind?: "task" | "workflow";
  readonly version?: string;
  readonly headers?: Headers;
  /** Of the activity of a task that is a workflow. */
  readonly heartbeatTimeoutMs?: number;
  /** From the run before, where the history was continued as new. */
  readonly carried?: Carried;
}

/** Of a run that is submitted, or started by a workflow. */
export function toMeta({ kind, definition, version, headers }: RunRequest): Meta {
  return {
    ...((kind === "workflow" || definition) && { kind }),
    ...(version !== undefined && { version }),
    ...(Object.keys(headers).length > 0 && { headers }),
  };
}

/** The input alone, where there is nothing else to say: others' code may take no more. */
export function argumentsOf(input: Json, meta: Meta): [Json, Meta?] {
  return Object.keys(meta).length === 0 ? [input] : [input, meta];
}

/** The detail of our failures: all that Temporal has no field for. */
export interface FailureDetail {
  readonly taskBackend: {
    readonly status: RunStatus | "released";
    readonly attempts: number;
    readonly error: ErrorRecord;
    readonly beat?: Beat;
  };
}

/** What our heartbeats carry from attempt to attempt. */
export interface Beat {
  /** Starts that are not charged: they were given back, or no worker was heard of. */
  readonly released?: number;
  /** The engine's number of the last start that was heard of. */
  readonly begun?: number;
  readonly startedAtMs?: number;
  readonly progress?: Json;
  /** How the attempt of that number failed. */
  readonly failed?: { readonly attempt: number; readonly error: ErrorRecord };
}

/**
 * A poll that a frozen process holds takes starts that nobody sees: they are given back. Of the first one, which is not announced,
 * it cannot be known.
 */
export function withoutUnheard(beat: Beat, attempt: number): Beat {
  const unheard = attempt - 1 - (beat.begun ?? 1);
  return unheard > 0 ? { ...beat, released: (beat.released ?? 0) + unheard } : beat;
}

/** A workflow's state across a continuation as new. */
interface Carried {
  readonly journal: readonly JournalEntry[];
  readonly fed: number;
  readonly commandsSeen: number;
  readonly startedAtMs: number;
  readonly timers: readonly (readonly [n: number, dueAtMs: number])[];
  readonly dedupeIds: readonly string[];
  readonly cancelled: boolean;
}

/** The input of a tick. */
export interface TickArguments {
  readonly workflowId: string;
  readonly name: string;
  readonly queue: string;
  readonly version?: string;
  readonly input: Json;
  readonly headers: Headers;
  readonly startedAtMs: number;
  readonly entries: readonly JournalEntry[];
  readonly from: number;
  readonly commandsSeen: number;
  /** Whether it may turn out to be a task: the workflow was started by its name only. */
  readonly undecided?: true;
}

/** What the worker answers to a tick: core's answer, or that the name is a task's. */
export type TickAnswer = (TickResult | { readonly do: "task" }) & {
  /** Of the steps that it starts. */
  readonly heartbeatTimeoutMs?: number;
  /** There are more commands than one answer may hold: ask again. */
  readonly more?: true;
};

/** What the only activity of a task that is a workflow returns: history keeps no heartbeats. */
export interface TaskEnd {
  readonly attempts: number;
  readonly beat: Beat;
  readonly output: Json;
}

/** The id of that activity. */
export const ONE_ACTIVITY = "task";

/** The one activity type of ours, beside those of the tasks. */
export const TICK = "taskBackendTick";
