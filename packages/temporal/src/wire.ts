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
  /** Of the workflow around a run that was submitted as an activity, by its name only: if the name is a task's, the activity runs it. */
  readonly forwarded?: true;
  /** Rules of the interpreter that the run before went by, where the history was continued as new. */
  readonly rules?: number;
  /** From the run before, where the history was continued as new. */
  readonly carried?: Carried;
}

/** The second argument as it came: from us, or from anybody. Undefined when it is none of ours. */
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
    /** `workflow`: the step was asked for by its name only, and the name is a workflow's. */
    readonly status: RunStatus | "released" | "workflow";
    /** Of that workflow. */
    readonly version?: string;
    readonly attempts: number;
    readonly error: ErrorRecord;
    readonly beat?: Beat;
  };
}

/** What our heartbeats carry from attempt to attempt. */
export interface Beat {
  /** Starts that are not charged: they were released, or no worker was heard of. */
  readonly released?: number;
  /** The engine's number of the last start that was heard of. */
  readonly begun?: number;
  readonly startedAtMs?: number;
  readonly progress?: Json;
  /** What the run turned out to be, where it was submitted by its name only. */
  readonly kind?: "task" | "workflow";
  /** How the attempt of that number failed. */
  readonly failed?: { readonly attempt: number; readonly error: ErrorRecord };
}

/**
 * A poll that a frozen process holds takes starts that nobody sees: they are released. Of the first one, which is not announced,
 * it cannot be known.
 */
export function withoutUnheard(beat: Beat, attempt: number): Beat {
  const unheard = attempt - 1 - (beat.begun ?? 1);
  return unheard > 0 ? { ...beat, released: (beat.released ?? 0) + unheard } : beat;
}

/** A workflow's state across a continuation as new. */
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
 * The rules that this version's ticks answer by. What is decided in a tick stands in its answer, which Temporal records, so the
 * interpreter replays old histories by the rules of their time without a marker for each change.
 */
export const RULES = 2;

/** The input of a tick. Temporal does not record that of a local activity: only the answer is on record. */
export interface TickArguments {
  readonly workflowId: string;
  readonly name: string;
  readonly queue: string;
  readonly version?: string;
  readonly input: Json;
  readonly headers: Headers;
  /** Temporal's own key, where the server has priorities. */
  readonly priorityKey?: number;
  readonly startedAtMs: number;
  readonly entries: readonly JournalEntry[];
  readonly from: number;
  /** Entries that an earlier tick has acted on. Absent from interpreters of the first rules: `from`. */
  readonly acted?: number;
  readonly commandsSeen: number;
  /** Timers that have not fired yet. */
  readonly timers?: readonly Timer[];
  /** Events of the history that the entries come from: there may be more by now. */
  readonly events?: number;
  /** Whether the function was about to end over a signal. */
  readonly signalsFirst?: true;
  /** Whether it may turn out to be a task: the workflow was started by its name only. */
  readonly undecided?: true;
}

export type Timer = readonly [n: number, dueAtMs: number];

/** An entry of the journal as the function has seen it: its place among those that were sent, and its time; or one that was added. */
export type Told = readonly [index: number, atMs?: number] | (JournalEntry & { type: "fired" });

/** What the worker answers to a tick: core's answer, or that the name is a task's. */
export type TickAnswer = (TickResult | { readonly do: "task" }) & {
  readonly rules?: number;
  /** Of the steps that it starts. */
  readonly heartbeatTimeoutMs?: number;
  /** There are more commands than one answer may hold: ask again. */
  readonly more?: true;
  /** Numbers of its commands whose time had come already when it was given: no timer of the server is needed, which comes late. */
  readonly due?: readonly number[];
  /** The version that took up a run which was submitted by its name only. */
  readonly version?: string;
  /** The time that the function was told it began at. */
  readonly startedAtMs?: number;
  /** The entries that no earlier tick has acted on, in the order and with the times that the function has seen. */
  readonly told?: readonly Told[];
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

/** Where a cancelled workflow's record stands, when it says more than that. */
export const CANCELLED_MEMO = "task-backend.cancelled";

/** A signal of ours, without arguments: the function went on by itself, and a tick has to say so. It leaves nothing in the journal. */
export const WAKE = "taskBackendWake";
