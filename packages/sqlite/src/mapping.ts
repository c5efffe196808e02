import {
  BackendUnavailableError,
  PRIORITIES,
  TaskBackendError,
  type ErrorRecord,
  type Json,
  type Priority,
  type RunRecord,
  type RunStatus,
} from "@task-backend/core/adapter";

/** The columns that `toRecord` reads. */
export const RECORD_COLUMNS = "id, name, queue, status, run_at, attempts, progress, submitted_at, started_at, finished_at, output, error";

export interface RecordRow {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  readonly status: RunStatus;
  readonly run_at: number | null;
  readonly attempts: number;
  readonly progress: string | null;
  readonly submitted_at: number;
  readonly started_at: number | null;
  readonly finished_at: number | null;
  readonly output: string | null;
  readonly error: string | null;
}

export function toRecord(row: RecordRow): RunRecord {
  // A due run stays `scheduled` in the file until a worker looks.
  const status = row.status === "scheduled" && (row.run_at ?? 0) <= Date.now() ? "pending" : row.status;
  return {
    id: row.id,
    name: row.name,
    queue: row.queue,
    status,
    attempts: row.attempts,
    submittedAtMs: row.submitted_at,
    ...(row.progress !== null && { progress: JSON.parse(row.progress) as Json }),
    ...(row.started_at !== null && { startedAtMs: row.started_at }),
    ...(row.finished_at !== null && { finishedAtMs: row.finished_at }),
    ...(row.output !== null && { output: JSON.parse(row.output) as Json }),
    ...(row.error !== null && { error: JSON.parse(row.error) as ErrorRecord }),
  };
}

/** Higher is served first. */
export function toPriority(priority: Priority): number {
  return PRIORITIES.indexOf(priority);
}

/** The word of a stored priority. */
export function fromPriority(priority: number): Priority {
  return PRIORITIES[priority] ?? "normal";
}

const REMEDIES: readonly (readonly [code: string, remedy: string])[] = [
  ["SQLITE_BUSY", "another process has kept it locked for too long; look for one that hangs inside a transaction"],
  ["SQLITE_LOCKED", "another process has kept it locked for too long; look for one that hangs inside a transaction"],
  ["SQLITE_FULL", "the disk is full; free some space, nothing accepted so far is lost"],
  ["SQLITE_READONLY", "it cannot be written; check the permissions of the file and of its folder"],
  ["SQLITE_CANTOPEN", "it cannot be opened; check that its folder exists and can be written"],
  ["SQLITE_NOTADB", "it is not an SQLite database; give the path of another file"],
  ["SQLITE_CORRUPT", "it is damaged; move it away and restore a backup"],
  ["SQLITE_IOERR", "reading or writing it failed; check the disk"],
];

/** What SQLite threw, with what to do about it. Errors of ours stay as they are. */
export function toUnavailable(cause: unknown, file: string): Error {
  if (cause instanceof TaskBackendError) return cause;
  const { message = String(cause) } = cause as { message?: string };
  const code = codeOf(cause);
  const remedy = REMEDIES.find(([prefix]) => code.startsWith(prefix))?.[1];
  return new BackendUnavailableError(`The sqlite file ${file}: ${remedy ?? message}${remedy ? ` (${code || message})` : ""}.`, { cause });
}

export function isBusy(error: unknown): boolean {
  return codeOf(error).startsWith("SQLITE_BUSY");
}

/** The driver's code; where it could not even open the file, it only gives SQLite's number at the end of its message. */
function codeOf(error: unknown): string {
  const { code, message = "" } = error as { code?: string; message?: string };
  if (code) return code;
  if (/local database .*: 14"?\)?$/.test(message)) return "SQLITE_CANTOPEN";
  return message.includes("database is locked") ? "SQLITE_BUSY" : "";
}
