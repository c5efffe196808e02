import { NonRetryableError, TaskFailedError } from "./errors.ts";
import { toJson, type Json } from "./json.ts";

/** An error as it is stored and reported: the same on every engine for the same throw. */
export interface ErrorRecord {
  readonly name: string;
  readonly message: string;
  /** The thrown error's own `code`, or one of ours; `TASK_FAILED` when it had none. */
  readonly code: string;
  /** Whether the policy was allowed to try again. */
  readonly retryable: boolean;
  /** In a workflow's error: the step that failed, with the steps inside it after a slash. */
  readonly step?: string;
  readonly stack?: string;
  readonly cause?: ErrorRecord;
  /** The thrown error's `details`, when it is JSON. */
  readonly details?: Json;
}

const MAX_CAUSES = 5;
const MAX_TEXT = 16_384;

/** Whatever a handler threw, as a record that JSON carries. */
export function toErrorRecord(thrown: unknown, depth = 0): ErrorRecord {
  if (thrown instanceof TaskFailedError) {
    const step = thrown.failure.step === undefined ? thrown.task : `${thrown.task}/${thrown.failure.step}`;
    return { ...thrown.failure, step };
  }
  const source = typeof thrown === "object" && thrown !== null ? (thrown as Record<string, unknown>) : {};
  const cause = source["cause"];
  const details = jsonOrNothing(source["details"]);
  return {
    name: text(source["name"]) ?? "Error",
    message: messageOf(thrown, source["message"]),
    code: text(source["code"]) ?? "TASK_FAILED",
    retryable: !(thrown instanceof NonRetryableError),
    ...(typeof source["stack"] === "string" && { stack: cut(source["stack"]) }),
    ...(cause !== undefined && cause !== null && depth < MAX_CAUSES && { cause: toErrorRecord(cause, depth + 1) }),
    ...(details !== undefined && { details }),
  };
}

/** A record for what core or an adapter found out itself, without a stack. */
export function errorRecord(name: string, code: string, message: string, retryable = false): ErrorRecord {
  return { name, message, code, retryable };
}

/** The record of a run whose stored data cannot be read: damaged, or written by something else. `what` names it. */
export function corruptRecord(what: string, cause?: unknown): ErrorRecord {
  const message = `${what} cannot be read: its data is damaged, or something else wrote it. It is settled so that others go on.`;
  return { ...errorRecord("CorruptRunError", "CORRUPT_RUN", message), ...(cause !== undefined && { cause: toErrorRecord(cause) }) };
}

/** The record of a run that was cancelled. */
export function cancelledRecord(name: string): ErrorRecord {
  return errorRecord("TaskCancelledError", "TASK_CANCELLED", `"${name}" was cancelled.`);
}

function messageOf(thrown: unknown, message: unknown): string {
  if (typeof message === "string") return cut(message);
  return typeof thrown === "object" && thrown !== null ? "An object without a message was thrown." : cut(String(thrown));
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? cut(value) : undefined;
}

function cut(value: string): string {
  return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}…` : value;
}

function jsonOrNothing(value: unknown): Json | undefined {
  if (value === undefined) return undefined;
  try {
    return toJson(value, "details of an error", 65_536);
  } catch {
    return undefined;
  }
}
