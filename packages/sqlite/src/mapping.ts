import { PRIORITIES, type Priority, type RunRecord } from "@task-backend/core/adapter";
import { DamagedRowError } from "./errors.ts";
import { count, countOrNull, errorOf, isSettled, jsonOf, statusOf, text } from "./stored.ts";

/** The columns that `toRecord` reads. */
export const RECORD_COLUMNS = "id, name, queue, status, run_at, attempts, progress, submitted_at, started_at, finished_at, output, error";

/** A row as the file has it: any column may hold anything. */
export type Row = Readonly<Record<string, unknown>>;

/** @throws DamagedRowError */
export function toRecord(row: Row): RunRecord {
  const status = statusOf(row["status"]);
  const due = countOrNull(row["run_at"], "run_at") ?? 0;
  const startedAtMs = countOrNull(row["started_at"], "started_at");
  const finishedAtMs = countOrNull(row["finished_at"], "finished_at");
  if ((finishedAtMs !== null) !== isSettled(status)) throw new DamagedRowError("Its status and the time of its end do not fit.");
  const { progress, output, error } = row;
  return {
    id: text(row["id"], "id"),
    name: text(row["name"], "name"),
    queue: text(row["queue"], "queue"),
    // A due run is stored as `scheduled` until a worker promotes it.
    status: status === "scheduled" && due <= Date.now() ? "pending" : status,
    attempts: count(row["attempts"], "attempts"),
    submittedAtMs: count(row["submitted_at"], "submitted_at"),
    ...(progress !== null && { progress: jsonOf(progress, "progress") }),
    ...(startedAtMs !== null && { startedAtMs }),
    ...(finishedAtMs !== null && { finishedAtMs }),
    ...(output !== null && { output: jsonOf(output, "output") }),
    ...(error !== null && { error: errorOf(error) }),
  };
}

/** The stored number of a priority: higher is served first. */
export function toPriority(priority: Priority): number {
  return PRIORITIES.indexOf(priority);
}
