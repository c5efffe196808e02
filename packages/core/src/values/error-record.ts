import { NonRetryableError, TaskCancelledError, TaskFailedError } from "./errors.ts";
import { toJson, type Json } from "./json.ts";
import { stepOf } from "./origin.ts";

/** An error in its stored form: the same on every engine for the same thrown value. */
export interface ErrorRecord {
  readonly name: string;
  readonly message: string;
  /** The thrown error's own `code`, or one of ours; `TASK_FAILED` when it had none. */
  readonly code: string;
  /** Whether the policy allowed a retry. */
  readonly retryable: boolean;
  /** In a workflow's error: the step that failed, with the steps inside it after a slash. */
  readonly step?: string;
  readonly stack?: string;
  readonly cause?: ErrorRecord;
  /** Of an AggregateError, as `Promise.any` gives: the first ten. */
  readonly errors?: readonly ErrorRecord[];
  /** The thrown error's `details`, when it is JSON. */
  readonly details?: Json;
}

const MAX_CAUSES = 5;
const MAX_ERRORS = 10;
const MAX_TEXT = 16_384;
/** The longest text of an error inside an error. */
const MAX_INNER_TEXT = 2_048;
/** About the longest a record may be with all that is in it, so that every store accepts it. The rest is left out. */
const MAX_RECORD = 200_000;
const MAX_DETAILS_BYTES = 65_536;

/** The characters that a record may still take. */
interface Room {
  characters: number;
}

/**
 * Turns any thrown value into a record that JSON can hold and every store accepts. Never throws, whatever the value's getters do.
 * A TaskFailedError becomes the record that it carries. User code may have made or changed that record, so it is read as warily.
 */
export function toErrorRecord(thrown: unknown): ErrorRecord {
  return recordOf(thrown, 0, { characters: MAX_RECORD }, false);
}

/** @param isRecord whether the value stands for an error as a record, with `step` and `retryable` of its own */
function recordOf(thrown: unknown, depth: number, room: Room, isRecord: boolean): ErrorRecord {
  const failure = !isRecord && thrown instanceof TaskFailedError ? read(thrown, "failure") : undefined;
  if (typeof failure === "object" && failure !== null) {
    const outer = stepOf(thrown) ?? text(read(thrown, "task"), MAX_INNER_TEXT);
    const record = recordOf(failure, depth, room, true);
    const steps = [outer, record.step].filter((step) => step !== undefined);
    return steps.length === 0 ? record : { ...record, step: steps.join("/") };
  }
  const limit = depth === 0 ? MAX_TEXT : MAX_INNER_TEXT;
  const stack = text(read(thrown, "stack"), limit);
  const step = isRecord ? text(read(thrown, "step"), MAX_TEXT) : ownStepOf(thrown);
  const own = {
    name: text(read(thrown, "name"), limit) ?? "Error",
    message: messageOf(thrown, limit),
    code: text(read(thrown, "code"), limit) ?? "TASK_FAILED",
    retryable: isRecord ? read(thrown, "retryable") === true : !(thrown instanceof NonRetryableError),
    ...(step !== undefined && { step }),
    ...(stack !== undefined && { stack }),
  };
  for (const value of Object.values(own)) room.characters -= String(value).length;
  const details = jsonOrNothing(read(thrown, "details"), room);
  const cause = read(thrown, "cause");
  const hasCause = cause !== undefined && cause !== null && depth < MAX_CAUSES && room.characters > 0;
  return {
    ...own,
    ...(hasCause && { cause: recordOf(cause, depth + 1, room, isRecord) }),
    ...errorsOf(thrown, depth, room, isRecord),
    ...(details !== undefined && { details }),
  };
}

function ownStepOf(thrown: unknown): string | undefined {
  return stepOf(thrown) ?? (thrown instanceof TaskCancelledError && thrown.step ? text(thrown.task, MAX_INNER_TEXT) : undefined);
}

/** A record for what core or an adapter found out itself, without a stack. */
export function errorRecord(name: string, code: string, message: string, retryable = false): ErrorRecord {
  return { name, message, code, retryable };
}

/** The record of a run whose stored data cannot be read: it is damaged, or another program wrote it. `what` names it. */
export function corruptRecord(what: string, cause?: unknown): ErrorRecord {
  const message = `${what} cannot be read: its data is damaged, or something else wrote it. It is settled so that others go on.`;
  return { ...errorRecord("CorruptRunError", "CORRUPT_RUN", message), ...(cause !== undefined && { cause: toErrorRecord(cause) }) };
}

const MAX_REASON = 200;

/** The record of a run whose outcome or data the store refuses, and would refuse again. `what` names what was to be stored. */
export function refusedRecord(what: string, refusal: unknown): ErrorRecord {
  // The store's words may quote what it refuses: what it could not hold is left out.
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

/** What somebody threw, as one line for a log. Never throws. */
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

/** A property of whatever was thrown: a getter may throw as well, and a revoked proxy does. */
function read(thrown: unknown, property: string): unknown {
  if (typeof thrown !== "object" || thrown === null) return undefined;
  try {
    return (thrown as Record<string, unknown>)[property];
  } catch {
    return undefined;
  }
}

function errorsOf(thrown: unknown, depth: number, room: Room, isRecord: boolean): { errors?: ErrorRecord[] } {
  if (depth >= MAX_CAUSES) return {};
  try {
    const given = isRecord || thrown instanceof AggregateError ? read(thrown, "errors") : undefined;
    const errors: ErrorRecord[] = [];
    for (const error of Array.isArray(given) ? given.slice(0, MAX_ERRORS) : []) {
      if (room.characters <= 0) break;
      errors.push(recordOf(error, depth + 1, room, isRecord));
    }
    return errors.length > 0 ? { errors } : {};
  } catch {
    return {};
  }
}

function text(value: unknown, limit: number): string | undefined {
  return typeof value === "string" && value !== "" ? cut(value, limit) : undefined;
}

/** Never between the halves of a surrogate pair. */
function cut(value: string, limit: number): string {
  if (value.length <= limit) return value;
  const last = value.charCodeAt(limit - 1);
  return `${value.slice(0, last >= 0xd800 && last <= 0xdbff ? limit - 1 : limit)}…`;
}

function jsonOrNothing(value: unknown, room: Room): Json | undefined {
  if (value === undefined || room.characters <= 0) return undefined;
  try {
    const json = toJson(value, "details of an error", Math.min(MAX_DETAILS_BYTES, room.characters));
    room.characters -= JSON.stringify(json).length;
    return json;
  } catch {
    return undefined;
  }
}
