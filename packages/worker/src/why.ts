import type { ErrorRecord } from "@task-backend/core";
import { toErrorRecord } from "@task-backend/core/adapter";

const MAX_DEPTH = 5;
const MAX_ERRORS = 3;

/** An error and its causes in one line: `fetch failed: connect ECONNREFUSED 127.0.0.1:1`. */
export function chainOf(error: ErrorRecord, depth = 0): string {
  const message = oneLine(error.message);
  const { cause, errors = [] } = error;
  const reasons =
    depth >= MAX_DEPTH ? [] : [...(cause ? [cause] : []), ...errors.slice(0, MAX_ERRORS)].map((one) => chainOf(one, depth + 1));
  // Many messages already end with the message of their cause.
  const told = reasons.filter((reason, index) => !message.includes(reason) && reasons.indexOf(reason) === index);
  if (told.length > 0 && errors.length > MAX_ERRORS) told.push(`${errors.length - MAX_ERRORS} more`);
  const why = told.join("; ");
  // An AggregateError of Node's network code has messages only in its inner errors.
  return message === "" ? why || (error.code === "TASK_FAILED" ? error.name : error.code) : why === "" ? message : `${message}: ${why}`;
}

/** A thrown value in one line. Never throws. */
export function whyOf(thrown: unknown): string {
  return chainOf(toErrorRecord(thrown));
}

/** Joins several lines into one. */
export function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, " ");
}
