/**
 * - `native`: the engine's own feature
 * - `emulated`: built on the engine's primitives, with the same observable result
 * - `approximate`: differs in a declared way
 * - `unsupported`: refused with UnsupportedCapabilityError before any I/O
 */
export type Level = "native" | "emulated" | "approximate" | "unsupported";

/** What an engine may have or lack. Each line says what a user loses where it is `approximate` or `unsupported`. */
export const FEATURES = [
  /** Starts that are lost with their worker count as attempts (rule 2). Approximate: a task that kills its worker starts more often. */
  "lostStarts",
  /** Base delay, factor and cap of the policy are honoured (rule 4). Unsupported: a definition with more than one attempt is refused. */
  "backoff",
  /** `RetryableError({ retryAfter })` is honoured (rule 4). Approximate: the next attempt comes by the policy. */
  "retryAfter",
  /** An attempt that takes too long is aborted (rule 5). Unsupported: a definition with a timeout is refused. */
  "timeout",
  /** A run that waits can be cancelled (rule 6). Approximate: it may start once more before it settles. */
  "cancelWaiting",
  /** A run that another process executes can be cancelled (rule 6). Approximate: its handler may run to its end first. */
  "cancelRunning",
  /** Higher priority is served first (rule 7). Approximate: fewer levels or no strict order. Unsupported: any but `normal` is refused. */
  "priority",
  /** A run can be submitted for later (rule 8). Unsupported: `delay` and `runAt` are refused. */
  "delay",
  /** The same key is one run (rule 9). Unsupported: `idempotencyKey` is refused. */
  "idempotency",
  /** A key and a delay together (rule 9). Unsupported: they are refused together. */
  "idempotencyWithDelay",
  /** However many runs wait on a queue that no worker serves, the other queues go on (rule 10). Approximate: very many hold them up. */
  "queueIsolation",
  /** A run whose name no worker knows waits for one that does (rule 11). Approximate: it is found later than others. */
  "unknownName",
  /** Runs that a stopping worker releases are not charged an attempt (rule 12). Approximate: they may be. */
  "release",
  /** `ctx.progress` is shown by `getResult` (rule 16). Unsupported: it is not kept. */
  "progress",
  /** U+0000 in payloads (rule 16). Unsupported: they are refused, and U+FFFD takes its place in errors. */
  "nullCharacters",
  /** Unpaired surrogates in payloads (rule 16). Unsupported: they are refused, and U+FFFD takes their place in errors. */
  "loneSurrogates",
  /** Objects come back with their keys in the order they had (rule 16). Approximate: in another order. */
  "keyOrder",
  /** `scheduled`, `pending` and `retrying` can be told apart. Approximate: one may show as another. */
  "waitingStatuses",
  /** Workflows (rules 18 to 28). Unsupported: they are refused. */
  "workflows",
] as const;

export type Feature = (typeof FEATURES)[number];

export interface Capabilities {
  /** Shown to people and in errors: `sqlite`. */
  readonly engine: string;
  /** Of the engine, as observed. */
  readonly version: string;
  /** Where it is, without secrets: a path, or host and port. */
  readonly where: string;
  readonly features: Readonly<Record<Feature, Level>>;
  readonly limits: {
    /** UTF-8 bytes of JSON: inputs, outputs, progress, signal payloads. */
    readonly maxPayloadBytes: number;
    /** Of one workflow's records. Absent: no limit. */
    readonly maxJournalBytes?: number;
    /** How many of the five priorities are told apart. */
    readonly priorityLevels: number;
    /** How long settled records are kept. */
    readonly retentionMs: number;
    /** At most this long after a worker died, another takes its runs. */
    readonly recoveryMs: number;
    /** At most this late a delay, retry or sleep comes. */
    readonly timerLatenessMs: number;
    /** At most this long after a run is ready and a worker has a slot free for it, it starts (rule 29). */
    readonly dispatchMs: number;
  };
}
