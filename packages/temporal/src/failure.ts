import { ApplicationFailure } from "@temporalio/common";
import type { FailureDetail } from "./wire.ts";

/*
 * Our failures, as the attempts and the interpreter throw and read them. It is bundled for the sandbox as well.
 */

type Detail = FailureDetail["taskBackend"];

/** With a delay Temporal tries again after it; without, the failure is final. */
export function failureOf(detail: Detail, nextRetryDelay?: number): ApplicationFailure {
  const { error } = detail;
  const failure = ApplicationFailure.create({
    message: error.message,
    type: error.code ?? error.name,
    nonRetryable: nextRetryDelay === undefined,
    details: [{ taskBackend: detail } satisfies FailureDetail],
    ...(nextRetryDelay !== undefined && { nextRetryDelay }),
  });
  if (error.stack !== undefined) failure.stack = error.stack;
  return failure;
}

/** What one of ours says; undefined for any other failure. */
export function detailOf(failure: unknown): Detail | undefined {
  if (!(failure instanceof ApplicationFailure)) return undefined;
  return (failure.details?.[0] as Partial<FailureDetail> | undefined)?.taskBackend;
}
