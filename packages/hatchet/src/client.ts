import { setTimeout as pause } from "node:timers/promises";
import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { ConfigurationError, type Logger } from "@task-backend/core/adapter";
import { isAway, isInternal } from "./errors.ts";
import type { HatchetSettings } from "./options.ts";

const TELLS_AGAIN_MS = 500;

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
