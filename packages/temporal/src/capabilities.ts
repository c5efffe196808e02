import type { Capabilities } from "@task-backend/core/adapter";
import type { TemporalSettings } from "./options.ts";

/** Temporal refuses payloads above 2 MB; our own data around them is small. */
const MAX_PAYLOAD_BYTES = 1_900_000;

/** How long a tick waits for the worker that has the run in its cache, before any other worker may take it. */
export const STICKY_MS = 5_000;
/** Temporal's own time limit for one workflow task. */
const WORKFLOW_TASK_MS = 10_000;

/** A start that found no free slot is released and returns with a timer of the server, which is up to a second late. */
const DISPATCH_MS = 3_000;

/** The facts observed on connecting. */
export interface Observed {
  readonly version: string;
  readonly retentionMs: number;
  /** Whether activities can run outside workflows. If so, tasks are such activities. */
  readonly standalone: boolean;
  readonly priorities: boolean;
}

export function capabilitiesOf(settings: TemporalSettings, { version, retentionMs, priorities }: Observed): Capabilities {
  return {
    engine: "temporal",
    version,
    where: `${settings.address}, namespace ${settings.namespace}`,
    features: {
      lostStarts: "native",
      backoff: "native",
      retryAfter: "native",
      timeout: "emulated",
      cancelWaiting: "native",
      cancelRunning: "native",
      priority: priorities ? "approximate" : "unsupported",
      delay: "native",
      idempotency: "native",
      idempotencyWithDelay: "native",
      queueIsolation: "native",
      unknownName: "emulated",
      release: "emulated",
      progress: "native",
      nullCharacters: "native",
      loneSurrogates: "native",
      keyOrder: "native",
      waitingStatuses: "native",
      workflows: "native",
    },
    limits: {
      maxPayloadBytes: MAX_PAYLOAD_BYTES,
      maxJournalBytes: MAX_PAYLOAD_BYTES,
      priorityLevels: priorities ? 5 : 1,
      retentionMs,
      recoveryMs: settings.heartbeatTimeoutMs + STICKY_MS + WORKFLOW_TASK_MS + 2_000,
      timerLatenessMs: 2_500,
      dispatchMs: DISPATCH_MS,
    },
  };
}
