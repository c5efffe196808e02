import { setTimeout as pause } from "node:timers/promises";
import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { BackendUnavailableError, ConfigurationError, TaskBackendError, type Logger } from "@task-backend/core/adapter";
import type { HatchetSettings } from "./options.ts";

const TELLS_AGAIN_MS = 500;
/** gRPC's number. */
const NOT_FOUND = 5;

/** Ready clients are used as they are; a worker gets one of its own, because a client listens for one worker's durable tasks only. */
export function newClient({ config, client }: HatchetSettings, log: Logger | undefined): HatchetClient {
  const say = (message: string) => log?.debug(`hatchet: ${message.trim()}`);
  const silent = () => {};
  const logger = () => ({ debug: silent, info: silent, green: silent, util: silent, warn: say, error: say });
  try {
    // Callers are told at once. What must be said is said by `insistUntil`.
    return HatchetClient.init({ ...(client ? client.config : config), retrier: { maxAttempts: 1 }, logger, log_level: "ERROR" } as never);
  } catch (cause) {
    throw new ConfigurationError(`The hatchet backend cannot use its options: ${(cause as Error).message}`, { cause });
  }
}

/*
 * The SDK repeats some calls for up to half a minute with timers of its own, whoever has given them up. What it would repeat is
 * called here below that.
 */

type Proto = Parameters<HatchetClient["admin"]["putWorkflow"]>[0];
type StepEvent = Parameters<HatchetClient["dispatcher"]["sendStepActionEvent"]>[0];

interface Grpc {
  putWorkflow(proto: Proto): Promise<never>;
  sendStepActionEvent(event: StepEvent): Promise<never>;
}

/** Registers a name. Two at once: one transaction gives way. */
export async function putWorkflow({ admin }: HatchetClient, proto: Proto): Promise<never> {
  const { adminGrpc } = admin as unknown as { adminGrpc: Grpc };
  try {
    return await adminGrpc.putWorkflow(proto);
  } catch (error) {
    if (!isInternal(error)) throw error;
    return adminGrpc.putWorkflow(proto);
  }
}

/** How an attempt ended must be told, or the engine would wait for it without end: until the worker is over. */
export function insistUntil(client: HatchetClient, over: AbortSignal): void {
  const { client: grpc } = client.dispatcher as unknown as { client: Grpc };
  client.admin.putWorkflow = (proto) => putWorkflow(client, proto);
  client.dispatcher.sendStepActionEvent = async (event) => {
    for (;;) {
      try {
        return await grpc.sendStepActionEvent(event);
      } catch (error) {
        if (!isAway(error) || over.aborted) throw error;
        await pause(TELLS_AGAIN_MS, undefined, { ref: false });
      }
    }
  };
}

/** Whether the server may answer later. */
export function isAway(error: unknown): boolean {
  return /UNAVAILABLE|DEADLINE_EXCEEDED|ECONNREFUSED|ECONNRESET|EPIPE|timeout|socket hang up/i.test((error as Error).message ?? "");
}

/** The server rolled back what it was asked. */
export function isInternal(error: unknown): boolean {
  return / INTERNAL: /.test((error as Error).message ?? "");
}

/** The server starts few keyed runs at a time, of all its clients together. */
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

/** What the client threw, with what to do about it. Errors of ours stay as they are. */
export function toUnavailable(cause: unknown, where: string): TaskBackendError {
  if (cause instanceof TaskBackendError) return cause;
  const { message = String(cause) } = cause as { message?: string };
  const remedy = REMEDIES.find(([pattern]) => pattern.test(message))?.[1];
  return new BackendUnavailableError(`Hatchet at ${where} cannot be used: ${message}.${remedy ? ` ${remedy}.` : ""}`, {
    cause: withoutRequest(cause),
  });
}

/** What the HTTP client throws carries its request, and that the token. */
function withoutRequest(cause: unknown): unknown {
  if (!(cause instanceof Error) || !("config" in cause || "request" in cause)) return cause;
  const { name, message, stack, code } = cause as Error & { code?: unknown };
  return Object.assign(new Error(message), { name, stack, ...(code !== undefined && { code }) });
}
