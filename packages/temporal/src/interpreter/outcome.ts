import { ActivityFailure, ApplicationFailure, ChildWorkflowFailure, isCancellation } from "@temporalio/workflow";
import type { ErrorRecord, RunRequest, StepOutcome } from "@task-backend/core/adapter";
import { detailOf, failureOf } from "../failure.ts";
import { undecodable } from "../undecodable.ts";

/** The outcome of a step from a failure of Temporal. A cancelled one has no code yet: the next tick writes its record. */
export function outcomeOf(step: string, error: unknown): StepOutcome {
  if (isCancellation(error) || (error instanceof ActivityFailure && error.retryState === "CANCEL_REQUESTED"))
    return { status: "cancelled", error: { name: step, message: "", code: "", retryable: false } };
  const cause = causeOf(error);
  if (cause instanceof ApplicationFailure) {
    const ours = detailOf(cause);
    if (ours) return { status: ours.status as "failed" | "timed_out" | "cancelled", error: ours.error };
    return {
      status: "failed",
      error: { name: cause.type ?? "Error", message: cause.message, code: cause.type ?? "TASK_FAILED", retryable: false },
    };
  }
  const { name = "Error", message = String(cause) } = cause as Partial<Error>;
  return { status: "failed", error: { name, message, code: "ENGINE_FAILED", retryable: false } };
}

/** The request for a child workflow if a step requested by name only turned out to be a workflow. */
export function asWorkflow(run: RunRequest, error: unknown): RunRequest | undefined {
  const detail = detailOf(causeOf(error));
  if (detail?.status !== "workflow") return undefined;
  return { ...run, kind: "workflow", ...(detail.version !== undefined && { version: detail.version }) };
}

/** Checks that an output could be decoded: other programs may write it in an unknown encoding. */
export function decoded<T>(step: string, output: T): T {
  const why = undecodable(output);
  if (why === undefined) return output;
  throw failed({
    name: "CorruptRunError",
    message: `The output of "${step}" cannot be read: ${why}`,
    code: "CORRUPT_RUN",
    retryable: false,
  });
}

/** The failure of a run whose arguments cannot be read: another program started it. */
export function corrupt(name: string, why: string): ApplicationFailure {
  const message = `The arguments of "${name}" cannot be read: ${why}. Something else started it here; give the input, and nothing else.`;
  return failed({ name: "CorruptRunError", message, code: "CORRUPT_RUN", retryable: false });
}

export function tooLarge(maxLength: number): ApplicationFailure {
  const message = `The journal of this workflow has outgrown one payload (${maxLength} characters); give parts of it to workflows of their own.`;
  return failed({ name: "JournalTooLargeError", message, code: "JOURNAL_TOO_LARGE", retryable: false });
}

function failed(error: ErrorRecord): ApplicationFailure {
  return failureOf({ status: "failed", attempts: 1, error });
}

function causeOf(error: unknown): unknown {
  return error instanceof ActivityFailure || error instanceof ChildWorkflowFailure ? error.cause : error;
}
