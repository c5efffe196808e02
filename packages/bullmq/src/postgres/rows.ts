import type { JobJson } from "bullmq";
import { readEnvelope } from "../envelope.ts";
import type { StoredJob } from "../mapping.ts";

export type Row = Record<string, unknown>;

/** The columns of a job and, if it is a started workflow, of our row beside it. */
export const JOB_COLUMNS = `j.queue, j.id, j.name, j.state, j.data::text AS data, j.attempts_made, j.attempts_started, j.stalled_count, j.added_at_ms,
  j.process_at_ms, j.processed_at_ms, j.finished_at_ms, j.progress::text AS progress, j.return_value::text AS return_value, j.failed_reason,
  j.stacktrace::text AS stacktrace, w.started_at, w.error, w.stalls`;
export const JOBS = `FROM job j LEFT JOIN task_backend_workflow w ON w.queue = j.queue AND w.id = j.id`;

export function toStoredJob(row: Row): StoredJob {
  const text = (column: string): string | undefined => (row[column] as string | null) ?? undefined;
  const number = (column: string): number | undefined => (row[column] === null ? undefined : Number(row[column]));
  const [processedOn, finishedOn, progress, returnvalue] = [
    number("processed_at_ms"),
    number("finished_at_ms"),
    text("progress"),
    text("return_value"),
  ];
  const [failedReason, stacktrace, error] = [text("failed_reason"), text("stacktrace"), text("error")];
  return {
    ref: { queue: row["queue"] as string, id: row["id"] as string },
    name: row["name"] as string,
    data: readEnvelope(row["data"] as string).data,
    state: row["state"] as StoredJob["state"],
    attemptsMade: row["attempts_made"] as number,
    attemptsStarted: row["attempts_started"] as number,
    stalledCounter: row["stalled_count"] as number,
    timestamp: Number(row["added_at_ms"]),
    dueAtMs: number("process_at_ms") ?? 0,
    ...(processedOn !== undefined && { processedOn }),
    ...(finishedOn !== undefined && { finishedOn }),
    ...(progress !== undefined && { progress }),
    ...(returnvalue !== undefined && { returnvalue }),
    ...(failedReason !== undefined && { failedReason }),
    ...(stacktrace !== undefined && { stacktrace }),
    ...(row["started_at"] !== null && {
      workflow: {
        startedAtMs: Number(row["started_at"]),
        stalls: row["stalls"] as number,
        ...(error !== undefined && { error }),
      },
    }),
  };
}

/** A claimed row in the form that BullMQ's backend returns it. */
export function claimedJob(row: Row): JobJson {
  return {
    id: row["id"],
    name: row["name"],
    data: JSON.stringify(row["data"]),
    opts: row["opts"],
    priority: row["priority"],
    progress: row["progress"] ?? 0,
    attemptsMade: row["attempts_made"],
    attemptsStarted: row["attempts_started"],
    stalledCounter: row["stalled_count"],
    timestamp: Number(row["added_at_ms"]),
    processedOn: Number(row["processed_at_ms"]),
    stacktrace: JSON.stringify(row["stacktrace"] ?? []),
  } as unknown as JobJson;
}
