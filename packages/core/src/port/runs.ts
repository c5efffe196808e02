import type { RetryPolicy } from "../define/retry.ts";
import type { ErrorRecord } from "../values/error-record.ts";
import type { TaskBackendError } from "../values/errors.ts";
import type { Headers, Json } from "../values/json.ts";
import type { Priority } from "../values/priority.ts";

/** The adapter chooses its form. `get(id)` needs nothing else, in any process. */
export type RunId = string;

/** The facts about a task or workflow, without its code. */
export interface DefinitionSpec {
  readonly kind: "task" | "workflow";
  readonly name: string;
  readonly queue: string;
  /** Workflows only. */
  readonly version?: string;
  /** Tasks only, like `timeoutMs`. */
  readonly retry?: RetryPolicy;
  readonly timeoutMs?: number;
  readonly native?: unknown;
}

export interface RunRequest {
  /** `task` when only the name is known; the worker that knows the name decides. */
  readonly kind: "task" | "workflow";
  readonly name: string;
  readonly queue: string;
  readonly version?: string;
  readonly input: Json;
  readonly headers: Headers;
  readonly priority: Priority;
  readonly runAtMs?: number;
  readonly idempotencyKey?: string;
  readonly native?: unknown;
  /** Absent when only the run's name is known; never replaces a definition that exists. */
  readonly definition?: DefinitionSpec;
}

export type SubmitOutcome = { readonly id: RunId; readonly deduplicated: boolean } | { readonly error: TaskBackendError };

/** The state of a run: `scheduled` for later, `pending` in its queue, … ; the last four are settled. */
export type RunStatus = "scheduled" | "pending" | "running" | "retrying" | "completed" | "failed" | "cancelled" | "timed_out";

export interface RunRecord {
  readonly id: RunId;
  readonly name: string;
  readonly queue: string;
  readonly status: RunStatus;
  /** The number of starts so far. */
  readonly attempts: number;
  readonly progress?: Json;
  readonly submittedAtMs: number;
  readonly startedAtMs?: number;
  readonly finishedAtMs?: number;
  /** Present when the run completed. */
  readonly output?: Json;
  /** Present when the run settled otherwise; while `retrying` it is the error of the last attempt. */
  readonly error?: ErrorRecord;
}

export type FailedStatus = "failed" | "timed_out" | "cancelled";

/** How a run ended, for the callers that wait for it. */
export type Settlement = Pick<RunRecord, "id" | "name" | "status" | "output" | "error">;

export interface SignalRequest {
  readonly name: string;
  readonly payload: Json;
  readonly dedupeId?: string;
}
