import type { Capabilities } from "@task-backend/core/adapter";
import type { HatchetSettings } from "./options.ts";

/** A gRPC message of Hatchet holds 4 MB, and a child's input shares one with other data. */
const MAX_PAYLOAD_BYTES = 1_500_000;
/** The engine's own limit: a worker is dead after 30 s without a heartbeat, and its runs are looked for every few seconds. */
const RECOVERY_MS = 45_000;

/** The engine looks for free slots every 1 to 1.5 s: a run for a worker that was full waits for the next look. */
const DISPATCH_MS = 3_000;

export function capabilitiesOf({ where, retentionMs }: HatchetSettings, version: string): Capabilities {
  return {
    engine: "hatchet",
    version,
    where,
    features: {
      lostStarts: "emulated",
      backoff: "emulated",
      retryAfter: "emulated",
      timeout: "emulated",
      cancelWaiting: "native",
      cancelRunning: "native",
      priority: "approximate",
      delay: "emulated",
      idempotency: "native",
      idempotencyWithDelay: "native",
      queueIsolation: "approximate",
      unknownName: "native",
      release: "emulated",
      progress: "emulated",
      nullCharacters: "unsupported",
      loneSurrogates: "unsupported",
      keyOrder: "approximate",
      waitingStatuses: "emulated",
      workflows: "native",
    },
    limits: {
      maxPayloadBytes: MAX_PAYLOAD_BYTES,
      priorityLevels: 3,
      retentionMs,
      recoveryMs: RECOVERY_MS,
      timerLatenessMs: 4_000,
      dispatchMs: DISPATCH_MS,
    },
  };
}
