import type { Capabilities } from "@task-backend/core/adapter";
import type { SqliteSettings } from "./options.ts";

/** SQLite allows 1 GB in one value; larger payloads than this should be passed around as a reference. */
const MAX_PAYLOAD_BYTES = 16 * 1024 * 1024;

export function capabilitiesOf(settings: SqliteSettings, version: string): Capabilities {
  return {
    engine: "sqlite",
    version,
    where: settings.file,
    features: {
      lostStarts: "native",
      backoff: "native",
      retryAfter: "native",
      timeout: "emulated",
      cancelWaiting: "native",
      cancelRunning: "native",
      priority: "native",
      delay: "native",
      idempotency: "native",
      idempotencyWithDelay: "native",
      queueIsolation: "native",
      unknownName: "native",
      release: "native",
      progress: "native",
      nullCharacters: "native",
      loneSurrogates: "native",
      keyOrder: "native",
      waitingStatuses: "native",
      workflows: "emulated",
    },
    limits: {
      maxPayloadBytes: MAX_PAYLOAD_BYTES,
      priorityLevels: 5,
      retentionMs: settings.retentionMs,
      recoveryMs: Math.ceil(settings.leaseMs * 1.4) + 500,
      timerLatenessMs: 1_000,
      dispatchMs: 250,
    },
  };
}
