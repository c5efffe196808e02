/**
 * - `native`: the engine's own feature
 * - `emulated`: built on the engine's primitives, with the same observable result
 * - `approximate`: differs in a declared way
 * - `unsupported`: refused with UnsupportedCapabilityError before any I/O
 */
export type Level = "native" | "emulated" | "approximate" | "unsupported";

/** The features an engine may have or lack. Each line says what a user loses when it is `approximate` or `unsupported`. */
export const FEATURES = [
  /** Starts that are lost with their worker count as attempts (rule 2). Approximate: a task that kills its worker starts more often. */
  "lostStarts",
  /** Base delay, factor and cap of the policy are honoured (rule 4). Unsupported: a definition with more than one attempt is refused. */
  "backoff",
  /** `RetryableError({ retryAfter })` is honoured (rule 4). Approximate: the policy sets the time of the next attempt. */
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
  /** Submissions with the same key are one run (rule 9). Unsupported: `idempotencyKey` is refused. */
  "idempotency",
  /** A key and a delay together (rule 9). Unsupported: they are refused together. */
  "idempotencyWithDelay",
  /** Runs that wait on a queue without workers do not delay other queues (rule 10). Approximate: very many of them do. */
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
  /** Objects come back with their keys in the original order (rule 16). Approximate: in another order. */
  "keyOrder",
  /** `scheduled`, `pending` and `retrying` are distinguished. Approximate: one may show as another. */
  "waitingStatuses",
  /** Workflows (rules 18 to 28). Unsupported: they are refused. */
  "workflows",
] as const;

export type Feature = (typeof FEATURES)[number];

export interface Capabilities {
  /** The engine's name in messages and errors: `sqlite`. */
  readonly engine: string;
  /** The engine's version, as observed. */
  readonly version: string;
  /** The engine's place, without secrets: a path, or host and port. */
  readonly where: string;
  readonly features: Readonly<Record<Feature, Level>>;
  readonly limits: {
    /** The largest input, output, progress or signal payload, in UTF-8 bytes of JSON. */
    readonly maxPayloadBytes: number;
    /** The largest journal of one workflow run, in bytes. Absent: no limit. */
    readonly maxJournalBytes?: number;
    /** How many of the five priorities the engine distinguishes. */
    readonly priorityLevels: number;
    /** How long settled records are kept. */
    readonly retentionMs: number;
    /** After a worker has died, another takes its runs within this time. */
    readonly recoveryMs: number;
    /** A delay, retry or sleep is at most this late. */
    readonly timerLatenessMs: number;
    /** A run that is ready starts within this time once a worker has a free slot for it (rule 29). */
    readonly dispatchMs: number;
  };
}
