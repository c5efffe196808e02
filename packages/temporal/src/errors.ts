import { BackendUnavailableError, TaskBackendError } from "@task-backend/core/adapter";

/*
 * Turns errors of the client into ours.
 */

/** gRPC's status codes. */
const INVALID_ARGUMENT = 3;
const NOT_FOUND = 5;
/** gRPC's status code for a request that came too late. */
export const FAILED_PRECONDITION = 9;
export const UNIMPLEMENTED = 12;
/** UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE. */
const AWAY: readonly unknown[] = [2, 4, 14];

const REMEDIES: readonly (readonly [RegExp, string])[] = [
  [/ECONNREFUSED|UNAVAILABLE|connect/i, "Start the server, or set TEMPORAL_ADDRESS to where it runs"],
  [/ENOTFOUND|Name resolution/i, "Check the host in TEMPORAL_ADDRESS"],
  [/UNAUTHENTICATED|PERMISSION_DENIED|unauthorized/i, "Check TEMPORAL_API_KEY, or the TLS files"],
];

/** Turns a client's error into one with a remedy. Errors of ours stay as they are. */
export function toError(cause: unknown, address: string): Error {
  if (cause instanceof TaskBackendError) return cause;
  const { message = String(cause), cause: inner } = cause as { message?: string; cause?: { message?: string } };
  const text = `${message}${inner?.message ? ` (${inner.message})` : ""}`;
  if (grpcCode(cause) === INVALID_ARGUMENT) {
    return new TaskBackendError("ENGINE_REFUSED", `Temporal at ${address} refuses this, now and later: ${text}. Change what was given.`, {
      cause,
    });
  }
  const remedy = REMEDIES.find(([pattern]) => pattern.test(text))?.[1];
  return new BackendUnavailableError(`Temporal at ${address} cannot be used: ${text}.${remedy ? ` ${remedy}.` : ""}`, { cause });
}

/** Whether the server may answer later. */
export function isAway(error: unknown): boolean {
  return AWAY.includes(grpcCode(error));
}

/** gRPC's status code of an error, even if the client has wrapped it. */
export function grpcCode(error: unknown): unknown {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  return code ?? cause?.code;
}

/** Whether the server does not know the id. */
export function isNotFound(error: unknown): boolean {
  const { name } = error as { name?: string };
  return name === "WorkflowNotFoundError" || name === "ActivityNotFoundError" || grpcCode(error) === NOT_FOUND;
}
