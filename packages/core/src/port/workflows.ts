import type { ErrorRecord } from "../values/error-record.ts";
import type { Headers, Json } from "../values/json.ts";
import type { Priority } from "../values/priority.ts";
import type { FailedStatus, RunId, RunRequest } from "./runs.ts";

/**
 * What has happened in a workflow run, in the order that every replay sees it.
 * `command` records what the function asked for; the others are handed to it one at a time.
 */
export type JournalEntry =
  | { readonly type: "command"; readonly n: number; readonly key: string }
  | { readonly type: "settled"; readonly n: number; readonly atMs: number; readonly outcome: StepOutcome }
  /** A sleep is over, or the wait for a signal has timed out. `dueMs`: when it should have been; `atMs` where it is absent. */
  | { readonly type: "fired"; readonly n: number; readonly atMs: number; readonly dueMs?: number }
  | { readonly type: "signal"; readonly name: string; readonly payload: Json; readonly atMs: number }
  | { readonly type: "cancel"; readonly atMs: number };

export type StepOutcome =
  { readonly status: "completed"; readonly output: Json } | { readonly status: FailedStatus; readonly error: ErrorRecord };

/** A workflow's run, as a worker holds it for a tick. */
export interface WorkflowRun {
  readonly id: RunId;
  readonly name: string;
  readonly version?: string;
  readonly queue: string;
  readonly input: Json;
  readonly headers: Headers;
  /** What its steps inherit. Absent: normal. */
  readonly priority?: Priority;
  readonly startedAtMs: number;
}

export interface Tick extends WorkflowRun {
  /** The journal from entry `from` on. */
  readonly entries: readonly JournalEntry[];
  readonly from: number;
  /** Entries that an earlier tick has already acted on: logs stay silent before it. */
  readonly seen: number;
  /** Commands already carried out: those numbered below it are not answered again. */
  readonly commandsSeen: number;
  /** How often in a row this run answered `retry`. */
  readonly retries: number;
}

export type TickResult =
  /** Those numbered >= `tick.commandsSeen`. */
  | { readonly do: "wait"; readonly commands: readonly Command[] }
  | { readonly do: "complete"; readonly output: Json }
  | { readonly do: "settle"; readonly status: "failed" | "cancelled"; readonly error: ErrorRecord }
  /** Ask again later, or on a worker with other code; adds nothing to the journal. */
  | { readonly do: "retry"; readonly delayMs: number; readonly error: ErrorRecord }
  /**
   * The run is not live here: ask again with the whole journal. With `signalsFirst`, in the order that the function of this name gives:
   * the function was about to end over a signal that it has not seen.
   */
  | { readonly do: "needJournal"; readonly signalsFirst?: boolean }
  /** This worker does not know the workflow or its version: release it. */
  | { readonly do: "release"; readonly delayMs: number };

/** `key` goes into the journal as it is. `cancel` names the command whose run or timer is no longer wanted. */
export type Command = { readonly n: number; readonly key: string } & (
  | { readonly do: "run"; readonly run: RunRequest }
  | { readonly do: "sleep"; readonly untilMs: number }
  | { readonly do: "await"; readonly signal: string; readonly untilMs?: number }
  | { readonly do: "cancel"; readonly of: number }
);
