import { BackendUnavailableError, TaskBackendError } from "@task-backend/core/adapter";

/*
 * Turns errors of the client into ours.
 */

/** gRPC's status code. */
const NOT_FOUND = 5;

/** Whether the server may answer later. */
export function isAway(error: unknown): boolean {
  return /UNAVAILABLE|DEADLINE_EXCEEDED|ECONNREFUSED|ECONNRESET|EPIPE|timeout|socket hang up/i.test((error as Error).message ?? "");
}

/** Whether the server rolled back the request. */
export function isInternal(error: unknown): boolean {
  return / INTERNAL: /.test((error as Error).message ?? "");
}

/** Whether the server has no free slot for keyed runs; it has few, for all its clients together. */
export function isBusy(error: unknown): boolean {
  return /no trigger slots/i.test((error as Error).message ?? "");
}

export function isNotFound(error: unknown): boolean {
  const { code, response, message = "" } = error as { code?: unknown; response?: { status?: number }; message?: string };
  return code === NOT_FOUND || response?.status === 404 || /NOT_FOUND|invalid external id/i.test(message);
}

const REMEDIES: readonly (readonly [RegExp, string])[] = [
  [/no trigger slots/i, "Too many keyed runs come at a time: set SERVER_GRPC_TRIGGER_WRITE_SLOTS of the server higher"],
  [/ECONNREFUSED|UNAVAILABLE|connect/i, "Start the server, or set HATCHET_CLIENT_HOST_PORT and HATCHET_CLIENT_API_URL to where it runs"],
  [/ENOTFOUND|Name resolution/i, "Check the hosts in HATCHET_CLIENT_HOST_PORT and HATCHET_CLIENT_API_URL"],
  [/UNAUTHENTICATED|PERMISSION_DENIED|401|403/i, "Check HATCHET_CLIENT_TOKEN"],
  [/SSL|TLS|wrong version number/i, "Check HATCHET_CLIENT_TLS_STRATEGY: none for a server without TLS"],
];

/** Turns a client's error into one with a remedy. Errors of ours stay as they are. */
export function toUnavailable(cause: unknown, where: string): TaskBackendError {
  if (cause instanceof TaskBackendError) return cause;
  const { message = String(cause) } = cause as { message?: string };
  const remedy = REMEDIES.find(([pattern]) => pattern.test(message))?.[1];
  return new BackendUnavailableError(`Hatchet at ${where} cannot be used: ${message}.${remedy ? ` ${remedy}.` : ""}`, {
    cause: withoutRequest(cause),
  });
}

/** Removes the request from an error of the HTTP client: the request holds the token. */
function withoutRequest(cause: unknown): unknown {
  if (!(cause instanceof Error) || !("config" in cause || "request" in cause)) return cause;
  const { name, message, stack, code } = cause as Error & { code?: unknown };
  return Object.assign(new Error(message), { name, stack, ...(code !== undefined && { code }) });
}
