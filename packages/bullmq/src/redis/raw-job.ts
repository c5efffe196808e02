import { readEnvelope, readJson } from "../envelope.ts";
import type { JobRef } from "../ids.ts";
import type { JobData, StoredJob } from "../mapping.ts";
import { KIND_FIELD } from "./scripts.ts";

/** The answer of the script tbGet: the job's hash, its state, its score if it is delayed, and fields of our hash. */
export type RawJob = [string[], StoredJob["state"], string | null, (string | null)[]];

export function toStoredJob(ref: JobRef, raw: RawJob): StoredJob {
  const [flat, state, score, [startedAt, error, stalls]] = raw;
  const fields: Record<string, string> = {};
  for (let index = 0; index < flat.length; index += 2) fields[flat[index] as string] = flat[index + 1] as string;
  const {
    name = "",
    data = "{}",
    atm,
    ats,
    stc,
    timestamp,
    processedOn,
    finishedOn,
    progress,
    returnvalue,
    failedReason,
    stacktrace,
  } = fields;
  return {
    ref,
    name,
    data: withKind(readEnvelope(data).data, fields[KIND_FIELD]),
    state,
    attemptsMade: Number(atm ?? 0),
    attemptsStarted: Number(ats ?? 0),
    stalledCounter: Number(stc ?? 0),
    timestamp: Number(timestamp) || 0,
    // BullMQ's scores of delayed jobs are milliseconds times 4096.
    dueAtMs: score === null ? 0 : Math.floor(Number(score) / 0x1000),
    ...(processedOn !== undefined && { processedOn: Number(processedOn) }),
    ...(finishedOn !== undefined && { finishedOn: Number(finishedOn) }),
    ...(progress !== undefined && { progress }),
    ...(returnvalue !== undefined && { returnvalue }),
    ...(failedReason !== undefined && { failedReason }),
    ...(stacktrace !== undefined && { stacktrace }),
    ...(startedAt && {
      workflow: { startedAtMs: Number(startedAt), stalls: Number(stalls ?? 0), ...(error && { error }) },
    }),
  };
}

/** Adds the kind that a worker found for a run submitted by name only. */
function withKind(data: JobData, kind: string | undefined): JobData {
  return data.kind === undefined && kind === "task" ? { ...data, kind } : data;
}

/** The fields of a job that BullMQ parses as JSON, each with the value that replaces invalid JSON. */
const AS_JSON: Readonly<Record<string, string>> = { opts: "{}", progress: "0", parent: "{}" };

/**
 * Makes the answer of a claiming script readable for BullMQ. BullMQ would throw on a damaged field after the job is claimed, and
 * nobody would know which job it was. So the field gets a harmless value, and the job's data a value that marks the damage.
 */
export function readable(answer: unknown): unknown {
  const fields: unknown = Array.isArray(answer) ? answer[0] : undefined;
  if (!Array.isArray(fields)) return answer;
  let damaged = false;
  for (let index = 0; index < fields.length; index += 2) {
    const harmless = AS_JSON[fields[index] as string];
    if (harmless === undefined) continue;
    const value = readJson(fields[index + 1] as string);
    if (value !== undefined && (harmless === "0" || (typeof value === "object" && value !== null))) continue;
    fields[index + 1] = harmless;
    damaged = true;
  }
  if (damaged) fields.push("data", "damaged");
  return answer;
}
