import { setTimeout as pause } from "node:timers/promises";
import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { ConfigurationError, type Logger } from "@task-backend/core/adapter";
import { isAway, isInternal } from "./errors.ts";
import type { HatchetSettings } from "./options.ts";

const TELLS_AGAIN_MS = 500;

/** Makes a client. Each worker gets its own, because a client listens for one worker's durable tasks only. */
export function newClient({ config, client }: HatchetSettings, log: Logger | undefined): HatchetClient {
  const say = (message: string) => log?.debug(`hatchet: ${message.trim()}`);
  const silent = () => {};
  const logger = () => ({ debug: silent, info: silent, green: silent, util: silent, warn: say, error: say });
  try {
    // Calls are not retried, so callers hear of an error at once. Messages that must arrive are repeated by `insistUntil`.
    return HatchetClient.init({ ...(client ? client.config : config), retrier: { maxAttempts: 1 }, logger, log_level: "ERROR" } as never);
  } catch (cause) {
    throw new ConfigurationError(`The hatchet backend cannot use its options: ${(cause as Error).message}`, { cause });
  }
}

/*
 * The SDK repeats some calls for up to half a minute with its own timers, even after their callers have given up. The functions
 * below make these calls without the SDK's retries.
 */

type Proto = Parameters<HatchetClient["admin"]["putWorkflow"]>[0];
type StepEvent = Parameters<HatchetClient["dispatcher"]["sendStepActionEvent"]>[0];

interface Grpc {
  putWorkflow(proto: Proto): Promise<never>;
  sendStepActionEvent(event: StepEvent): Promise<never>;
}

/** Registers a name, with one retry: of two registrations at once, one transaction is rolled back. */
export async function putWorkflow({ admin }: HatchetClient, proto: Proto): Promise<never> {
  const { adminGrpc } = admin as unknown as { adminGrpc: Grpc };
  try {
    return await adminGrpc.putWorkflow(proto);
  } catch (error) {
    if (!isInternal(error)) throw error;
    return adminGrpc.putWorkflow(proto);
  }
}

/** Repeats the news of an attempt's end until the worker is closed: without it the engine would wait for ever. */
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
