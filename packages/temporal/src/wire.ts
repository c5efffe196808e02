import type { ErrorRecord, Headers, JournalEntry, Json, RunRequest, RunStatus, TickResult } from "@task-backend/core/adapter";

/*
 * The data that travels through Temporal beside inputs and outputs. The interpreter in the sandbox shares it, so it imports only types.
 */

/** The second argument of our activities and workflows; the first is the input, in clear. */
export interface Meta {
  /** The kind, as the submitter knew it. Absent if submitted by name only, or started by another program. */
  readonly kind?: "task" | "workflow";
  readonly version?: string;
  readonly headers?: Headers;
  /** Only for the activity of a task that is a workflow. */
  readonly heartbeatTimeoutMs?: number;
  /** Marks the workflow of a run that was submitted as an activity, by name only: if the name is a task's, the activity runs it. */
  readonly forwarded?: true;
  /** The interpreter rules of the previous run, if the history was continued as new. */
  readonly rules?: number;
  /** The state of the previous run, if the history was continued as new. */
  readonly carried?: Carried;
}

/** Checks the second argument, which may come from any program. Undefined when it is none of ours. */
export function readMeta(value: unknown): Meta | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const { kind, version, headers, heartbeatTimeoutMs } = value as Record<string, unknown>;
  const isText = (one: unknown): boolean => one === undefined || typeof one === "string";
  const fits =
    (kind === undefined || kind === "task" || kind === "workflow") &&
    isText(version) &&
    (headers === undefined || (typeof headers === "object" && headers !== null && Object.values(headers).every(isText))) &&
    (heartbeatTimeoutMs === undefined || typeof heartbeatTimeoutMs === "number");
  return fits ? value : undefined;
}

/** The second argument for a run that is submitted, or started by a workflow. */
export function toMeta({ kind, definition, version, headers }: RunRequest): Meta {
  return {
    ...((kind === "workflow" || definition) && { kind }),
    ...(version !== undefined && { version }),
    ...(Object.keys(headers).length > 0 && { headers }),
  };
}

/** The arguments: only the input when there is nothing to add, because code of others may take no more. */
export function argumentsOf(input: Json, meta: Meta): [Json, Meta?] {
  return Object.keys(meta).length === 0 ? [input] : [input, meta];
}

/** The detail of our failures: everything that Temporal has no field for. */
export interface FailureDetail {
  readonly taskBackend: {
    /** `workflow`: the step was requested by name only, and the name is a workflow's. */
    readonly status: RunStatus | "released" | "workflow";
    /** The version of that workflow. */
    readonly version?: string;
    readonly attempts: number;
    readonly error: ErrorRecord;
    readonly beat?: Beat;
  };
}

/** The details that our heartbeats carry from attempt to attempt. */
export interface Beat {
  /** The number of starts that are not charged: they were released, or the server never heard of them. */
  readonly released?: number;
  /** The engine's number of the last start that it heard of. */
  readonly begun?: number;
  readonly startedAtMs?: number;
  readonly progress?: Json;
  /** The kind of the run that a worker found, if it was submitted by name only. */
  readonly kind?: "task" | "workflow";
  /** The number and error of the last failed attempt. */
  readonly failed?: { readonly attempt: number; readonly error: ErrorRecord };
}

/**
 * Counts starts that the server never heard of as released: a poll of a frozen process takes them. The first start is not announced,
 * so this cannot be known for it.
 */
export function withoutUnheard(beat: Beat, attempt: number): Beat {
  const unheard = attempt - 1 - (beat.begun ?? 1);
  return unheard > 0 ? { ...beat, released: (beat.released ?? 0) + unheard } : beat;
}

/** The state of a workflow that is carried over when it continues as new. */
export interface Carried {
  readonly journal: readonly JournalEntry[];
  readonly fed: number;
  readonly commandsSeen: number;
  readonly startedAtMs: number;
  readonly timers: readonly Timer[];
  readonly dedupeIds: readonly string[];
  readonly cancelled: boolean;
}

/**
 * The rules of this version's ticks. Each decision of a tick is in its answer, which Temporal records, so the interpreter
 * replays old histories by the rules of their time without a marker for each change.
 */
export const RULES = 2;

/** The input of a tick. Temporal does not record the input of a local activity, only its answer. */
export interface TickArguments {
  readonly workflowId: string;
  readonly name: string;
  readonly queue: string;
  readonly version?: string;
  readonly input: Json;
  readonly headers: Headers;
  /** Temporal's own key, if the server has priorities. */
  readonly priorityKey?: number;
  readonly startedAtMs: number;
  readonly entries: readonly JournalEntry[];
  readonly from: number;
  /** The number of entries that an earlier tick has acted on. Absent under the first rules: then it is `from`. */
  readonly acted?: number;
  readonly commandsSeen: number;
  /** Timers that have not fired yet. */
  readonly timers?: readonly Timer[];
  /** The number of history events that the entries come from; there may be more by now. */
  readonly events?: number;
  /** Whether the function was about to end without having seen a signal. */
  readonly signalsFirst?: true;
  /** Whether the run may be a task, because the workflow was started by its name only. */
  readonly undecided?: true;
}

export type Timer = readonly [n: number, dueAtMs: number];

/** An entry as the function saw it: its position among the sent entries and its time, or an added timer. */
export type Told = readonly [index: number, atMs?: number] | (JournalEntry & { type: "fired" });

/** The answer of a tick: core's answer, or that the name is a task's. */
export type TickAnswer = (TickResult | { readonly do: "task" }) & {
  readonly rules?: number;
  /** The heartbeat timeout of the steps that it starts. */
  readonly heartbeatTimeoutMs?: number;
  /** There are more commands than one answer may hold: repeat the tick. */
  readonly more?: true;
  /** The numbers of its timers that are due already; the server's own timers would be late. */
  readonly due?: readonly number[];
  /** The version that started a run which was submitted by its name only. */
  readonly version?: string;
  /** The start time that the function was given. */
  readonly startedAtMs?: number;
  /** The entries that no earlier tick has acted on, in the order and with the times that the function saw. */
  readonly told?: readonly Told[];
};

/** The result of the only activity of a task that is a workflow: the history keeps no heartbeats. */
export interface TaskEnd {
  readonly attempts: number;
  readonly beat: Beat;
  readonly output: Json;
}

/** The id of that activity. */
export const ONE_ACTIVITY = "task";

/** The only activity type of ours, besides those of the tasks. */
export const TICK = "taskBackendTick";

/** The memo that holds a cancelled workflow's record, if the record says more than that it was cancelled. */
export const CANCELLED_MEMO = "task-backend.cancelled";

/** A signal of ours, without arguments: the function went on outside of a tick, and the next tick reports it. It is not in the journal. */
export const WAKE = "taskBackendWake";
