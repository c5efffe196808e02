import { BackendUnavailableError, TaskBackendError } from "@task-backend/core/adapter";
import { resultCode } from "./driver.ts";

const HELD = "another process has kept it locked for too long; look for one that hangs inside a transaction";

/** The result codes of SQLite that mean that the file cannot be used for now, each with a remedy. */
const AWAY: ReadonlyMap<number, readonly [name: string, remedy: string]> = new Map([
  [3, ["SQLITE_PERM", "access to it is denied; check the permissions of the file and of its folder"]],
  [5, ["SQLITE_BUSY", HELD]],
  [6, ["SQLITE_LOCKED", HELD]],
  [7, ["SQLITE_NOMEM", "this process has no memory left; give it more"]],
  [8, ["SQLITE_READONLY", "it cannot be written; check the permissions of the file and of its folder"]],
  [10, ["SQLITE_IOERR", "reading or writing it failed; check the disk"]],
  [11, ["SQLITE_CORRUPT", "it is damaged; move it away and restore a backup"]],
  [13, ["SQLITE_FULL", "the disk is full; free some space, nothing accepted so far is lost"]],
  [14, ["SQLITE_CANTOPEN", "it cannot be opened; check that its folder exists and can be written"]],
  [26, ["SQLITE_NOTADB", "it is not an SQLite database; give the path of another file"]],
]);

/** TOOBIG, CONSTRAINT, MISMATCH, RANGE: the result codes of SQLite for a value that it will refuse each time. */
const REFUSALS: ReadonlySet<number> = new Set([18, 19, 20, 25]);

/** A row holds something that this package cannot have written. Its reader settles the run, so that others go on. */
export class DamagedRowError extends Error {
  override readonly name = "DamagedRowError";
}

/** Turns an error of SQLite into one with a remedy. Errors of ours stay as they are. */
export function toUnavailable(cause: unknown, file: string): Error {
  if (cause instanceof TaskBackendError) return cause;
  const code = resultCode(cause);
  const away = code === undefined ? undefined : AWAY.get(code);
  const { message = String(cause) } = cause as { message?: string };
  return new BackendUnavailableError(`The sqlite file ${file}: ${away ? `${away[1]} (${away[0]})` : message}.`, { cause });
}

/** Whether another connection holds the file. */
export function isBusy(error: unknown): boolean {
  return resultCode(error) === 5;
}

/**
 * Whether SQLite, or JavaScript before it, will refuse a value each time, so that trying again cannot help. All other errors are
 * about the state of the file, which may change.
 */
export function isRefusal(error: unknown): boolean {
  const cause = causeOf(error);
  const code = resultCode(cause);
  if (code !== undefined) return REFUSALS.has(code);
  return cause instanceof DamagedRowError || cause instanceof RangeError || cause instanceof TypeError || cause instanceof SyntaxError;
}

/** The original error behind an error made for users. */
export function causeOf(error: unknown): unknown {
  return error instanceof BackendUnavailableError && error.cause !== undefined ? error.cause : error;
}
