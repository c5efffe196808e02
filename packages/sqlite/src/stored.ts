import {
  PRIORITIES,
  type ErrorRecord,
  type Headers,
  type JournalEntry,
  type Json,
  type Priority,
  type RunStatus,
  type StepOutcome,
} from "@task-backend/core/adapter";
import { DamagedRowError } from "./errors.ts";

/*
 * Reads stored values. SQLite keeps any type in any column, and other programs can write to the file, so each value is checked when
 * it is read. An invalid value is a DamagedRowError, which costs its own run and no other.
 */

/** The last moment of JavaScript's dates; no due time is later, and no number in the file is larger. */
export const LAST_MS = 8_640_000_000_000_000;

/** A moment for storage: an integer that can be read again, whatever arithmetic made it. */
export function storedMs(ms: number): number {
  return Number.isNaN(ms) ? Date.now() : Math.min(Math.max(Math.ceil(ms), 0), LAST_MS);
}

const STATUSES: ReadonlySet<unknown> = new Set<RunStatus>([
  "scheduled",
  "pending",
  "running",
  "retrying",
  "completed",
  "failed",
  "cancelled",
  "timed_out",
]);
const FAILED: ReadonlySet<unknown> = new Set<RunStatus>(["failed", "cancelled", "timed_out"]);

export function isSettled(status: RunStatus): boolean {
  return status === "completed" || FAILED.has(status);
}

export function text(value: unknown, what: string): string {
  if (typeof value === "string") return value;
  throw new DamagedRowError(`Its ${what} is not text.`);
}

export function textOrNull(value: unknown, what: string): string | null {
  return value === null ? null : text(value, what);
}

/** A whole number, 0 or more. */
export function count(value: unknown, what: string): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw new DamagedRowError(`Its ${what} is not a whole number from 0.`);
}

export function countOrNull(value: unknown, what: string): number | null {
  return value === null ? null : count(value, what);
}

export function statusOf(value: unknown): RunStatus {
  if (STATUSES.has(value)) return value as RunStatus;
  throw new DamagedRowError("Its status is none.");
}

export function priorityOf(value: unknown): Priority {
  const priority = PRIORITIES[count(value, "priority")];
  if (priority === undefined) throw new DamagedRowError("Its priority is none.");
  return priority;
}

/** The parser's error is not kept as the cause: its message would show a part of the payload. */
export function jsonOf(value: unknown, what: string): Json {
  const json = text(value, what);
  try {
    return JSON.parse(json) as Json;
  } catch {
    throw new DamagedRowError(`Its ${what} is not JSON.`);
  }
}

export function headersOf(value: unknown): Headers {
  const headers = jsonOf(value, "headers");
  if (isObject(headers) && Object.values(headers).every((header) => typeof header === "string")) return headers as Headers;
  throw new DamagedRowError("Its headers are not an object of texts.");
}

export function errorOf(value: unknown): ErrorRecord {
  const error = jsonOf(value, "error");
  if (isErrorRecord(error)) return error;
  throw new DamagedRowError("Its error is not the record of one.");
}

export function entryOf(value: unknown): JournalEntry {
  const entry = jsonOf(value, "journal");
  if (isObject(entry) && isEntry(entry)) return entry as unknown as JournalEntry;
  throw new DamagedRowError("Its journal holds an entry that is none.");
}

type Fields = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isErrorRecord(value: unknown): value is ErrorRecord {
  if (!isObject(value)) return false;
  const { name, message, code, cause } = value;
  return [name, message, code].every((part) => typeof part === "string") && (cause === undefined || isErrorRecord(cause));
}

function isEntry({ type, n, key, atMs, dueMs, name, payload, outcome }: Fields): boolean {
  const numbered = Number.isSafeInteger(n) && (n as number) >= 0;
  if (type === "command") return numbered && typeof key === "string";
  if (!Number.isFinite(atMs)) return false;
  switch (type) {
    case "settled":
      return numbered && isOutcome(outcome);
    case "fired":
      return numbered && (dueMs === undefined || Number.isFinite(dueMs));
    case "signal":
      return typeof name === "string" && payload !== undefined;
    default:
      return type === "cancel";
  }
}

function isOutcome(value: unknown): value is StepOutcome {
  if (!isObject(value)) return false;
  const { status, output, error } = value;
  return status === "completed" ? output !== undefined : FAILED.has(status) && isErrorRecord(error);
}
