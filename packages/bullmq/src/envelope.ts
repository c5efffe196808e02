import type { Headers, JournalEntry, Json } from "@task-backend/core/adapter";
import { readStored } from "./errors.ts";
import { toRef } from "./ids.ts";
import type { FailureRecord, JobData } from "./mapping.ts";

/*
 * Stored data may be damaged, or written by another program. All JSON that this package reads is checked here, once, so that no
 * other code meets an unexpected shape.
 */

/** The data of a job. With `damage`, the job cannot be run: `data` then holds only the parent workflow, which must be told. */
export interface Envelope {
  readonly data: JobData;
  readonly damage?: Error;
}

export function readEnvelope(text: string | undefined): Envelope {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "");
    return { data: checkData(value) };
  } catch (error) {
    const parent = isObject(value) ? parentOf(value["parent"]) : undefined;
    return { data: { input: null, ...(parent && { parent }) }, damage: error as Error };
  }
}

function checkData(value: unknown): JobData {
  if (!isObject(value) || !("input" in value)) throw new Error("The job carries no input as task-backend writes it.");
  const { headers, kind, parent } = value;
  if (headers !== undefined && !isHeaders(headers)) throw wrong("headers");
  if (kind !== undefined && kind !== "task" && kind !== "workflow") throw wrong("kind");
  if (parent !== undefined && !parentOf(parent)) throw wrong("parent");
  for (const name of ["version", "idempotencyKey", "submission"]) {
    if (value[name] !== undefined && typeof value[name] !== "string") throw wrong(name);
  }
  return value as unknown as JobData;
}

function wrong(field: string): Error {
  return new Error(`The job's data has a field "${field}" that task-backend did not write.`);
}

function parentOf(value: unknown): JobData["parent"] {
  if (!Array.isArray(value) || value.length !== 2) return undefined;
  const [run, n] = value as unknown[];
  return typeof run === "string" && toRef(run) && isCount(n) ? [run, n] : undefined;
}

/** @throws RunFault with CORRUPT_RUN */
export function readEntry(text: string, runId: string): JournalEntry {
  return readStored(`The journal of run "${runId}"`, () => {
    const entry: unknown = JSON.parse(text);
    if (!isObject(entry) || !isEntry(entry)) throw new Error("An entry is not one that task-backend writes.");
    return entry as unknown as JournalEntry;
  });
}

function isEntry(entry: Record<string, unknown>): boolean {
  switch (entry["type"]) {
    case "command":
      return isCount(entry["n"]) && typeof entry["key"] === "string";
    case "settled":
      return isCount(entry["n"]) && isNumber(entry["atMs"]) && isObject(entry["outcome"]) && typeof entry["outcome"]["status"] === "string";
    case "fired":
      return isCount(entry["n"]) && isNumber(entry["atMs"]);
    case "signal":
      return typeof entry["name"] === "string" && "payload" in entry && isNumber(entry["atMs"]);
    case "cancel":
      return isNumber(entry["atMs"]);
    default:
      return false;
  }
}

/** Our record in a job's stacktrace; undefined when there is no readable one. */
export function readFailure(stacktrace: string | undefined): FailureRecord | undefined {
  const list = readJson(stacktrace);
  const last: unknown = Array.isArray(list) ? list.at(-1) : undefined;
  if (typeof last !== "string" || !last.startsWith('{"status":')) return undefined;
  const record: unknown = readJson(last);
  if (!isObject(record) || !isNumber(record["attempts"]) || !isObject(record["error"])) return undefined;
  return typeof record["error"]["message"] === "string" ? (record as unknown as FailureRecord) : undefined;
}

/** Parses JSON; undefined for any other text. */
export function readJson(text: string | undefined): Json | undefined {
  try {
    return text === undefined ? undefined : (JSON.parse(text) as Json);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isHeaders(value: unknown): value is Headers {
  return isObject(value) && Object.values(value).every((header) => typeof header === "string");
}

function isNumber(value: unknown): value is number {
  return typeof value === "number";
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
