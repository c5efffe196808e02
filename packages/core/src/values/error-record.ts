import { NonRetryableError, TaskCancelledError, TaskFailedError } from "./errors.ts";
import { toJson, type Json } from "./json.ts";
import { stepOf } from "./origin.ts";

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
  /** The first ten errors inside an AggregateError, such as `Promise.any` throws. */
  readonly errors?: readonly ErrorRecord[];
  /** The thrown error's `details`, when it is JSON. */
  readonly details?: Json;
}

const MAX_CAUSES = 5;
const MAX_ERRORS = 10;
const MAX_TEXT = 16_384;
/** The longest text of an error inside an error: many of them must not make a record that no store accepts. */
const MAX_INNER_TEXT = 2_048;

/** Turns any thrown value into a record that JSON can hold. Never throws, whatever the value's getters do. */
export function toErrorRecord(thrown: unknown, depth = 0): ErrorRecord {
  if (thrown instanceof TaskFailedError) {
    const outer = stepOf(thrown) ?? thrown.task;
    return { ...thrown.failure, step: thrown.failure.step === undefined ? outer : `${outer}/${thrown.failure.step}` };
  }
  const limit = depth === 0 ? MAX_TEXT : MAX_INNER_TEXT;
  const stack = read(thrown, "stack");
  const cause = read(thrown, "cause");
  const errors = depth < MAX_CAUSES ? errorsOf(thrown, depth) : [];
  const details = jsonOrNothing(read(thrown, "details"));
  const step = stepOf(thrown) ?? (thrown instanceof TaskCancelledError && thrown.step ? thrown.task : undefined);
  return {
    name: text(read(thrown, "name"), limit) ?? "Error",
    message: messageOf(thrown, limit),
    code: text(read(thrown, "code"), limit) ?? "TASK_FAILED",
    retryable: !(thrown instanceof NonRetryableError),
    ...(step !== undefined && { step }),
    ...(typeof stack === "string" && { stack: cut(stack, limit) }),
    ...(cause !== undefined && cause !== null && depth < MAX_CAUSES && { cause: toErrorRecord(cause, depth + 1) }),
    ...(errors.length > 0 && { errors }),
    ...(details !== undefined && { details }),
  };
}

/** A record for an error that core or an adapter found itself, without a stack. */
export function errorRecord(name: string, code: string, message: string, retryable = false): ErrorRecord {
  return { name, message, code, retryable };
}

/** The record of a run whose stored data cannot be read: damaged, or written by something else. `what` names it. */
export function corruptRecord(what: string, cause?: unknown): ErrorRecord {
  const message = `${what} cannot be read: its data is damaged, or something else wrote it. It is settled so that others go on.`;
  return { ...errorRecord("CorruptRunError", "CORRUPT_RUN", message), ...(cause !== undefined && { cause: toErrorRecord(cause) }) };
}

const MAX_REASON = 200;

/** The record of a run whose outcome or data the store refuses and would refuse again. `what` names the refused value. */
export function refusedRecord(what: string, refusal: unknown): ErrorRecord {
  // The store's message may quote the refused value, so characters that it could not hold are left out.
  const why = toErrorRecord(refusal)
    .message.slice(0, MAX_REASON)
    .replaceAll("\u0000", "")
    .replace(/[\ud800-\udfff]/g, "")
    .replace(/\.$/, "");
  return errorRecord(
    "StoreRefusedError",
    "STORE_REFUSED",
    `The store refuses ${what}: ${why}. Make it smaller, or plain text and numbers.`,
  );
}

/** The record of a run that was cancelled. */
export function cancelledRecord(name: string): ErrorRecord {
  return errorRecord("TaskCancelledError", "TASK_CANCELLED", `"${name}" was cancelled.`);
}

/** A thrown value in one line for a log. Never throws. */
export function describeThrown(thrown: unknown): string {
  const { name, message } = toErrorRecord(thrown);
  return `${name}: ${message}`;
}

function messageOf(thrown: unknown, limit: number): string {
  const message = read(thrown, "message");
  if (typeof message === "string") return cut(message, limit);
  if ((typeof thrown === "object" && thrown !== null) || typeof thrown === "function") return "An object without a message was thrown.";
  return cut(String(thrown), limit);
}

/** Reads a property of a thrown value. A getter may throw, and a revoked proxy does. */
function read(thrown: unknown, property: string): unknown {
  if (typeof thrown !== "object" || thrown === null) return undefined;
  try {
    return (thrown as Record<string, unknown>)[property];
  } catch {
    return undefined;
  }
}

function errorsOf(thrown: unknown, depth: number): ErrorRecord[] {
  const errors = read(thrown, "errors");
  try {
    if (!(thrown instanceof AggregateError) || !Array.isArray(errors)) return [];
    return errors.slice(0, MAX_ERRORS).map((error) => toErrorRecord(error, depth + 1));
  } catch {
    return [];
  }
}

function text(value: unknown, limit: number): string | undefined {
  return typeof value === "string" && value !== "" ? cut(value, limit) : undefined;
}

/** Shortens a text without splitting a surrogate pair. */
function cut(value: string, limit: number): string {
  if (value.length <= limit) return value;
  const last = value.charCodeAt(limit - 1);
  return `${value.slice(0, last >= 0xd800 && last <= 0xdbff ? limit - 1 : limit)}…`;
}

function jsonOrNothing(value: unknown): Json | undefined {
  if (value === undefined) return undefined;
  try {
    return toJson(value, "details of an error", 65_536);
  } catch {
    return undefined;
  }
}
