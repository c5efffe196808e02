import type { ErrorRecord } from "../values/error-record.ts";
import type { Headers, Json } from "../values/json.ts";
import type { Priority } from "../values/priority.ts";
import type { FailedStatus, RunId, RunRequest } from "./runs.ts";

/**
 * One event of a workflow run; the journal has them in the order that every replay sees.
 * `command` records a call of the function; the others are handed to the function one at a time.
 */
export type JournalEntry =
  | { readonly type: "command"; readonly n: number; readonly key: string }
  | { readonly type: "settled"; readonly n: number; readonly atMs: number; readonly outcome: StepOutcome }
  /** A sleep is over, or the wait for a signal has timed out. `dueMs`: when it was due; absent when that is `atMs`. */
  | { readonly type: "fired"; readonly n: number; readonly atMs: number; readonly dueMs?: number }
  | { readonly type: "signal"; readonly name: string; readonly payload: Json; readonly atMs: number }
  | { readonly type: "cancel"; readonly atMs: number };

export type StepOutcome =
  { readonly status: "completed"; readonly output: Json } | { readonly status: FailedStatus; readonly error: ErrorRecord };

/** A workflow's run as a worker holds it for a tick. */
export interface WorkflowRun {
  readonly id: RunId;
  readonly name: string;
  readonly version?: string;
  readonly queue: string;
  readonly input: Json;
  readonly headers: Headers;
  /** The priority that its steps inherit. Absent: normal. */
  readonly priority?: Priority;
  readonly startedAtMs: number;
}

export interface Tick extends WorkflowRun {
  /** The entries of the journal from number `from` on. */
  readonly entries: readonly JournalEntry[];
  readonly from: number;
  /** The number of entries that an earlier tick has acted on: logs stay silent before it. */
  readonly seen: number;
  /** The number of commands already carried out: commands with a lower number are not returned again. */
  readonly commandsSeen: number;
  /** The number of consecutive `retry` answers of this run. */
  readonly retries: number;
}

export type TickResult =
  /** The commands numbered `tick.commandsSeen` and above. */
  | { readonly do: "wait"; readonly commands: readonly Command[] }
  | { readonly do: "complete"; readonly output: Json }
  | { readonly do: "settle"; readonly status: "failed" | "cancelled"; readonly error: ErrorRecord }
  /** Repeat the tick later, or on a worker with other code; nothing is added to the journal. */
  | { readonly do: "retry"; readonly delayMs: number; readonly error: ErrorRecord }
  /**
   * The run is not live here: repeat the tick with the whole journal. With `signalsFirst`, order it with the function `signalsFirst`,
   * because the workflow was about to end without having seen a signal.
   */
  | { readonly do: "needJournal"; readonly signalsFirst?: boolean }
  /** This worker does not know the workflow or its version: release it. */
  | { readonly do: "release"; readonly delayMs: number };

/** `key` goes into the journal as it is. `cancel` names the command whose run or timer is no longer needed. */
export type Command = { readonly n: number; readonly key: string } & (
  | { readonly do: "run"; readonly run: RunRequest }
  | { readonly do: "sleep"; readonly untilMs: number }
  | { readonly do: "await"; readonly signal: string; readonly untilMs?: number }
  | { readonly do: "cancel"; readonly of: number }
);
