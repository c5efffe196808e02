import { BackendUnavailableError, corruptRecord, refusedRecord, TaskBackendError, type ErrorRecord } from "@task-backend/core/adapter";

/** BullMQ's codes for: no such job, no lock, not active, the lock of another. */
const LOST: readonly unknown[] = [-1, -2, -3, -6];

/** Whether a write was refused because this worker does not own the run any more. */
export function isLost(error: unknown): boolean {
  return LOST.includes((error as { code?: unknown }).code);
}

/** What stands in the way of one run lies in the run itself: trying again cannot help, so it settles with this record. */
export class RunFault extends Error {
  readonly record: ErrorRecord;

  constructor(record: ErrorRecord) {
    super(record.message);
    this.name = "RunFault";
    this.record = record;
  }
}

/** Reads what is stored of a run. `what` names it. @throws RunFault with CORRUPT_RUN */
export function readStored<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new RunFault(corruptRecord(what, cause));
  }
}

/**
 * How a run ends whose data or outcome the store will never give or take; undefined where the store is merely away.
 * `what` names what was to be stored.
 */
export function faultOf(error: unknown, what: string): ErrorRecord | undefined {
  if (error instanceof RunFault) return error.record;
  return isRefused(error) ? refusedRecord(what, error) : undefined;
}

/** SQLSTATE classes that speak of the data: data exception, integrity, a limit of the program. */
const REFUSED_BY_POSTGRES = /^(22|23|54)[0-9A-Z]{3}$/;
/** What Redis answers for as long as it cannot work; a script's error holds it as well. */
const REDIS_IS_AWAY =
  /\b(OOM|LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|MISCONF|NOREPLICAS|NOAUTH|NOPERM|WRONGPASS|UNKILLABLE)\b|max number of clients|unknown command/;

/** Whether an error is an answer about what was sent, which will be the same next time, rather than a store that is away. */
export function isRefused(error: unknown): boolean {
  const { name, code, message = "" } = error as { name?: string; code?: unknown; message?: string };
  if (name === "ReplyError") return /^(ERR|WRONGTYPE)\b/.test(message) && !REDIS_IS_AWAY.test(message);
  if (typeof code === "string" && REFUSED_BY_POSTGRES.test(code)) return true;
  // What cannot even be put together here: text that grows too long.
  return error instanceof RangeError || code === "ERR_STRING_TOO_LONG";
}

/** What the driver threw, with what to do about it. Errors of ours stay as they are. */
export function toUnavailable(cause: unknown, where: string): Error {
  if (cause instanceof TaskBackendError) return cause;
  const message = describe(cause);
  return new BackendUnavailableError(`${where} cannot be used: ${message}.${remedyOf(message)}`, { cause: withoutCommand(cause) });
}

/** An error of ioredis carries the command that failed, and with it passwords and payloads. */
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
