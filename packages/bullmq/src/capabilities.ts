import type { Capabilities, Level } from "@task-backend/core/adapter";
import type { BullmqSettings } from "./options.ts";

/** Far below the limit of either store; larger payloads than this should be passed around as a reference. */
const MAX_PAYLOAD_BYTES = 16 * 1024 * 1024;

/** The facts observed on connecting. */
export interface Observed {
  readonly version: string;
  readonly where: string;
}

export function capabilitiesOf(settings: BullmqSettings, { version, where }: Observed): Capabilities {
  // The type jsonb can hold neither, and it sorts keys.
  const oddCharacters: Level = settings.target.store === "redis" ? "native" : "unsupported";
  return {
    engine: "bullmq",
    version,
    where,
    features: {
      lostStarts: "emulated",
      backoff: "native",
      retryAfter: "native",
      timeout: "emulated",
      cancelWaiting: "emulated",
      cancelRunning: "emulated",
      priority: "native",
      delay: "native",
      idempotency: "native",
      idempotencyWithDelay: "native",
      queueIsolation: "native",
      unknownName: "emulated",
      release: "native",
      progress: "native",
      nullCharacters: oddCharacters,
      loneSurrogates: oddCharacters,
      keyOrder: settings.target.store === "redis" ? "native" : "approximate",
      waitingStatuses: "native",
      workflows: "emulated",
    },
    limits: {
      maxPayloadBytes: MAX_PAYLOAD_BYTES,
      priorityLevels: 5,
      retentionMs: settings.retentionMs,
      recoveryMs: Math.ceil(settings.lockMs + 2 * settings.stalledIntervalMs) + 1_500,
      timerLatenessMs: 1_000,
      // Measured at ten times the machine's load: 10 ms on Redis, 320 ms on PostgreSQL.
      dispatchMs: 1_000,
    },
  };
}
