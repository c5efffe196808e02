import type { ErrorRecord } from "./error-record.ts";

const KINDS = Symbol.for("task-backend.error-kinds");

type ErrorClass = { kind?: string; prototype: object };

/**
 * The base of every error that task-backend throws: a stable `code` to branch on, a message for people.
 * `instanceof` also recognises errors made by another installed copy of the package.
 */
export class TaskBackendError extends Error {
  static readonly kind: string = "TaskBackendError";
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.name = new.target.kind;
    Object.defineProperty(this, KINDS, { value: kindsOf(new.target), enumerable: false });
  }

  static override [Symbol.hasInstance](this: ErrorClass, value: unknown): boolean {
    if (typeof value !== "object" || value === null) return false;
    try {
      // A user's own subclass has no own kind: the prototype chain decides, as usual.
      if (!Object.hasOwn(this, "kind") || this.kind === undefined) return Object.prototype.isPrototypeOf.call(this.prototype, value);
      const kinds: unknown = Reflect.get(value, KINDS);
      return Array.isArray(kinds) && kinds.includes(this.kind);
    } catch {
      // Handlers may throw anything, even a revoked proxy.
      return false;
    }
  }
}

function kindsOf(target: ErrorClass): string[] {
  const kinds: string[] = [];
  for (let at: ErrorClass | null = target; at; at = Object.getPrototypeOf(at) as ErrorClass | null) {
    if (Object.hasOwn(at, "kind") && at.kind) kinds.push(at.kind);
  }
  return kinds;
}

/** A variable, option or file of the configuration is wrong, or names a package that is not installed. */
export class ConfigurationError extends TaskBackendError {
  static override readonly kind = "ConfigurationError";
  constructor(message: string, options?: { cause?: unknown }) {
    super("CONFIGURATION", message, options);
  }
}

/** A definition, or a set of definitions, is invalid: a duplicate name, a cycle, a bad option. */
export class InvalidDefinitionError extends TaskBackendError {
  static override readonly kind = "InvalidDefinitionError";
  constructor(message: string, options?: { cause?: unknown }) {
    super("INVALID_DEFINITION", message, options);
  }
}

/** An argument of a call is wrong: a duration, a priority, a name. */
export class InvalidArgumentError extends TaskBackendError {
  static override readonly kind = "InvalidArgumentError";
  constructor(message: string, options?: { cause?: unknown }) {
    super("INVALID_ARGUMENT", message, options);
  }
}

/** One finding of a Standard Schema. */
export interface InputIssue {
  readonly path: string;
  readonly message: string;
}

/** The input does not fit the task's schema. */
export class InvalidInputError extends TaskBackendError {
  static override readonly kind = "InvalidInputError";
  readonly issues: readonly InputIssue[];
  constructor(name: string, issues: readonly InputIssue[]) {
    const shown = issues.slice(0, 5).map((issue) => `${issue.path}: ${issue.message}`);
    super("INVALID_INPUT", `Input of "${name}" does not fit its schema: ${shown.join("; ")}${issues.length > 5 ? "; …" : ""}.`);
    this.issues = issues;
  }
}

/** A value that JSON cannot hold without loss; `path` says where. */
export class InvalidPayloadError extends TaskBackendError {
  static override readonly kind = "InvalidPayloadError";
  readonly path: string;
  constructor(where: string, path: string, what: string, cause?: unknown) {
    super(
      "INVALID_PAYLOAD",
      `The ${where} holds ${what} at ${path}; give JSON: null, booleans, finite numbers, strings, arrays, plain objects.`,
      cause === undefined ? undefined : { cause },
    );
    this.path = path;
  }
}

/** A payload larger than the connected engine accepts. */
export class PayloadTooLargeError extends TaskBackendError {
  static override readonly kind = "PayloadTooLargeError";
  readonly bytes: number;
  readonly maxBytes: number;
  constructor(where: string, bytes: number, maxBytes: number) {
    super(
      "PAYLOAD_TOO_LARGE",
      `The ${where} is ${bytes} bytes of JSON and the engine takes ${maxBytes}; store it elsewhere and pass a reference.`,
    );
    this.bytes = bytes;
    this.maxBytes = maxBytes;
  }
}

/** The connected engine cannot do what was requested; thrown before any I/O. */
export class UnsupportedCapabilityError extends TaskBackendError {
  static override readonly kind = "UnsupportedCapabilityError";
  readonly capability: string;
  constructor(engine: string, capability: string, message: string) {
    super("UNSUPPORTED_CAPABILITY", `${engine}: ${message}`);
    this.capability = capability;
  }
}

/** The engine did not answer in time, or answered that it cannot work. */
export class BackendUnavailableError extends TaskBackendError {
  static override readonly kind = "BackendUnavailableError";
  constructor(message: string, options?: { cause?: unknown }) {
    super("BACKEND_UNAVAILABLE", message, options);
  }
}

/** A call on a backend after its `close()`. */
export class BackendClosedError extends TaskBackendError {
  static override readonly kind = "BackendClosedError";
  constructor(call: string) {
    super("BACKEND_CLOSED", `${call} was called on a backend that is closed; make a new one with getBackend().`);
  }
}

/** No run has this id, or its record is past the retention. */
export class RunNotFoundError extends TaskBackendError {
  static override readonly kind = "RunNotFoundError";
  readonly runId: string;
  constructor(runId: string) {
    super("RUN_NOT_FOUND", `No run with id "${runId}": never accepted by this backend, or past its retention.`);
    this.runId = runId;
  }
}

/** A signal for a run that is settled. */
export class RunSettledError extends TaskBackendError {
  static override readonly kind = "RunSettledError";
  readonly runId: string;
  constructor(runId: string) {
    super("RUN_SETTLED", `Run "${runId}" is settled and takes no signal.`);
    this.runId = runId;
  }
}

/** The engine refused some of the runs given to `submitMany`; it accepted those in `accepted`. */
export class SubmitManyError extends TaskBackendError {
  static override readonly kind = "SubmitManyError";
  readonly accepted: readonly { index: number; id: string }[];
  readonly rejected: readonly { index: number; error: TaskBackendError }[];
  constructor(accepted: SubmitManyError["accepted"], rejected: SubmitManyError["rejected"]) {
    super("SUBMIT_MANY", `${rejected.length} of ${accepted.length + rejected.length} runs were refused: ${rejected[0]?.error.message}`, {
      cause: rejected[0]?.error,
    });
    this.accepted = accepted;
    this.rejected = rejected;
  }
}

/** A wait that ended before its run settled or its signal came. */
export class WaitTimeoutError extends TaskBackendError {
  static override readonly kind = "WaitTimeoutError";
  constructor(what: string, timeoutMs: number) {
    super("WAIT_TIMEOUT", `${what} did not come within ${timeoutMs} ms.`);
  }
}

/** A run settled without an output; `failure` is its recorded error. */
export class TaskFailedError extends TaskBackendError {
  static override readonly kind: string = "TaskFailedError";
  readonly failure: ErrorRecord;
  readonly task: string;
  readonly runId: string | undefined;
  constructor(task: string, runId: string | undefined, failure: ErrorRecord, verb = "failed") {
    super(verb === "failed" ? "TASK_FAILED" : "TASK_TIMED_OUT", `"${task}" ${verb}: ${failure.message}`, { cause: failure });
    this.failure = failure;
    this.task = task;
    this.runId = runId;
  }
}

/** A run whose attempts all ran out of time. */
export class TaskTimedOutError extends TaskFailedError {
  static override readonly kind = "TaskTimedOutError";
  constructor(task: string, runId: string | undefined, failure: ErrorRecord) {
    super(task, runId, failure, "timed out");
  }
}

/** A run was cancelled. This is also the reason of `ctx.signal`, and the error of pending calls of a cancelled workflow. */
export class TaskCancelledError extends TaskBackendError {
  static override readonly kind = "TaskCancelledError";
  readonly task: string;
  /** Whether `task` is a step of the workflow that sees this error. */
  readonly step: boolean;
  constructor(task: string, options: { step?: boolean } = {}) {
    super("TASK_CANCELLED", `"${task}" was cancelled.`);
    this.task = task;
    this.step = options.step ?? false;
  }
}

/** The reason of `ctx.signal` when the attempt's timeout has passed. */
export class AttemptTimeoutError extends TaskBackendError {
  static override readonly kind = "AttemptTimeoutError";
  constructor(task: string, timeoutMs: number) {
    super("TIMEOUT", `An attempt of "${task}" took longer than its timeout of ${timeoutMs} ms.`);
  }
}

/** The reason of `ctx.signal` when the worker stops or has lost the run; another attempt will be made elsewhere. */
export class AttemptInterruptedError extends TaskBackendError {
  static override readonly kind = "AttemptInterruptedError";
  constructor(task: string, why: string) {
    super("INTERRUPTED", `An attempt of "${task}" was interrupted: ${why}.`);
  }
}

/** Throw it from a handler when trying again cannot help: the run fails at once. */
export class NonRetryableError extends TaskBackendError {
  static override readonly kind = "NonRetryableError";
  readonly details: unknown;
  constructor(message: string, options: { code?: string; details?: unknown; cause?: unknown } = {}) {
    super(options.code ?? "NON_RETRYABLE", message, "cause" in options ? { cause: options.cause } : undefined);
    this.details = options.details;
  }
}

/** Throw it from a handler to say when the next attempt may start. */
export class RetryableError extends TaskBackendError {
  static override readonly kind = "RetryableError";
  /** Milliseconds or duration text; the policy's backoff decides when absent. */
  readonly retryAfter: number | string | undefined;
  readonly details: unknown;
  constructor(message: string, options: { retryAfter?: number | string; code?: string; details?: unknown; cause?: unknown } = {}) {
    super(options.code ?? "RETRYABLE", message, "cause" in options ? { cause: options.cause } : undefined);
    this.retryAfter = options.retryAfter;
    this.details = options.details;
  }
}
