import type { ErrorRecord } from "../values/error-record.ts";
import { TaskCancelledError, TaskFailedError, TaskTimedOutError } from "../values/errors.ts";
import type { Json } from "../values/json.ts";
import type { RunRecord, RunStatus, Settlement } from "../port/port.ts";

interface ResultBase {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  /** The number of starts so far. */
  readonly attempts: number;
  readonly progress?: Json;
  readonly submittedAt: Date;
  readonly startedAt?: Date;
  readonly finishedAt?: Date;
}

/** The state of a run, distinguished by `status`. */
export type RunResult<Out = unknown> =
  | (ResultBase & { readonly status: "scheduled" | "pending" | "running" })
  /** The run waits for its next attempt; `error` is the error of the last one. */
  | (ResultBase & { readonly status: "retrying"; readonly error?: ErrorRecord })
  | (ResultBase & { readonly status: "completed"; readonly output: Out })
  | (ResultBase & { readonly status: "failed" | "cancelled" | "timed_out"; readonly error: ErrorRecord });

/** Another name of `RunResult`, for people who use tasks only. */
export type TaskResult<Out = unknown> = RunResult<Out>;

export type TaskStatus = RunStatus;

export function toResult<Out>(record: RunRecord): RunResult<Out> {
  const { status, output, error, submittedAtMs, startedAtMs, finishedAtMs } = record;
  const base: ResultBase = {
    id: record.id,
    name: record.name,
    queue: record.queue,
    attempts: record.attempts,
    ...(record.progress !== undefined && { progress: record.progress }),
    submittedAt: new Date(submittedAtMs),
    ...(startedAtMs !== undefined && { startedAt: new Date(startedAtMs) }),
    ...(finishedAtMs !== undefined && { finishedAt: new Date(finishedAtMs) }),
  };
  switch (status) {
    case "scheduled":
    case "pending":
    case "running":
      return { ...base, status };
    case "retrying":
      return { ...base, status, ...(error && { error }) };
    case "completed":
      return { ...base, status, output: (output ?? null) as Out };
    default:
      return { ...base, status, error: error as ErrorRecord };
  }
}

/** @throws TaskFailedError, TaskTimedOutError, TaskCancelledError */
export function outputOf<Out>(record: Settlement): Out {
  const { id, name, status } = record;
  if (status === "completed") return (record.output ?? null) as Out;
  if (status === "cancelled") throw new TaskCancelledError(name);
  throw new (status === "timed_out" ? TaskTimedOutError : TaskFailedError)(name, id, record.error as ErrorRecord);
}
