import type { JobData, JobRef, StoredJob } from "../mapping.ts";

/** What the script tbGet answers: the job's hash, its state, its score where it is delayed, and what our hash holds. */
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
    data: JSON.parse(data) as JobData,
    state,
    attemptsMade: Number(atm ?? 0),
    attemptsStarted: Number(ats ?? 0),
    stalledCounter: Number(stc ?? 0),
    timestamp: Number(timestamp),
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
