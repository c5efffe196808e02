import { BackendUnavailableError, corruptRecord, refusedRecord, TaskBackendError, type ErrorRecord } from "@task-backend/core/adapter";

/** BullMQ's codes for: no such job, no lock, not active, locked by another. */
const LOST: readonly unknown[] = [-1, -2, -3, -6];

/** Whether a write was refused because this worker no longer owns the run. */
export function isLost(error: unknown): boolean {
  return LOST.includes((error as { code?: unknown }).code);
}

/** An error in the data of one run: trying again cannot help, so the run settles with this record. */
export class RunFault extends Error {
  readonly record: ErrorRecord;

  constructor(record: ErrorRecord) {
    super(record.message);
    this.name = "RunFault";
    this.record = record;
  }
}

/** Reads stored data of a run. `what` names it. @throws RunFault with CORRUPT_RUN */
export function readStored<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new RunFault(corruptRecord(what, cause));
  }
}

/**
 * The outcome of a run whose data or outcome the store will always refuse; undefined when the store is only unreachable.
 * `what` names the value to be stored.
 */
export function faultOf(error: unknown, what: string): ErrorRecord | undefined {
  if (error instanceof RunFault) return error.record;
  return isRefused(error) ? refusedRecord(what, error) : undefined;
}

/** The SQLSTATE classes for errors in the data: data exception, integrity, a limit of the program. */
const REFUSED_BY_POSTGRES = /^(22|23|54)[0-9A-Z]{3}$/;
/** The answers of Redis while it cannot work; a script's error contains them too. */
const REDIS_IS_AWAY =
  /\b(OOM|LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|MISCONF|NOREPLICAS|NOAUTH|NOPERM|WRONGPASS|UNKILLABLE)\b|max number of clients|unknown command/;

/** Whether the store refused the data itself, and would do so again, rather than being unreachable. */
export function isRefused(error: unknown): boolean {
  const { name, code, message = "" } = error as { name?: string; code?: unknown; message?: string };
  if (name === "ReplyError") return /^(ERR|WRONGTYPE)\b/.test(message) && !REDIS_IS_AWAY.test(message);
  if (typeof code === "string" && REFUSED_BY_POSTGRES.test(code)) return true;
  // The request cannot even be built here: its text is too long.
  return error instanceof RangeError || code === "ERR_STRING_TOO_LONG";
}

/** Turns a driver's error into one with a remedy. Errors of ours stay as they are. */
export function toUnavailable(cause: unknown, where: string): Error {
  if (cause instanceof TaskBackendError) return cause;
  const message = describe(cause);
  return new BackendUnavailableError(`${where} cannot be used: ${message}.${remedyOf(message)}`, { cause: withoutCommand(cause) });
}

/** Removes the failed command from an error of ioredis: it may hold passwords and payloads. */
function withoutCommand(cause: unknown): unknown {
  if (typeof cause !== "object" || cause === null) return cause;
  if ("command" in cause) Reflect.deleteProperty(cause, "command");
  const { errors, cause: inner } = cause as { errors?: unknown; cause?: unknown };
  if (Array.isArray(errors)) for (const one of errors) withoutCommand(one);
  if (inner !== undefined) withoutCommand(inner);
  return cause;
}

function describe(cause: unknown): string {
  const { message, code, errors } = cause as { message?: string; code?: string; errors?: readonly Error[] };
  return (message || errors?.[0]?.message || code || String(cause)).replace(/\.$/, "");
}

const REMEDIES: readonly (readonly [RegExp, string])[] = [
  [/ECONNREFUSED/, "Start the server, or set TASK_BACKEND_URL to where it runs"],
  [/ENOTFOUND|EAI_AGAIN/, "Check the host in TASK_BACKEND_URL"],
  [/NOAUTH|WRONGPASS|password authentication/, "Check user and password in TASK_BACKEND_URL"],
  [/OOM command not allowed/, "Redis is out of memory: raise maxmemory, with the policy noeviction"],
  [/READONLY/, "This is a replica: connect to the primary"],
  [/does not exist/, "Create it, or correct TASK_BACKEND_URL"],
];

function remedyOf(message: string): string {
  const remedy = REMEDIES.find(([pattern]) => pattern.test(message))?.[1];
  return remedy ? ` ${remedy}.` : "";
}
