import { ApplicationFailure } from "@temporalio/common";
import type { ErrorRecord } from "@task-backend/core/adapter";
import type { FailureDetail } from "./wire.ts";

/*
 * Our failures, as the attempts and the interpreter throw and read them. It is bundled for the sandbox as well.
 */

type Detail = FailureDetail["taskBackend"];

/** With a delay Temporal tries again after it; without, the failure is final. */
export function failureOf(detail: Detail, nextRetryDelay?: number): ApplicationFailure {
  const { error } = detail;
  const failure = ApplicationFailure.create({
    // The fields of the failure itself hold no half surrogates; the record in its details has the text as it was.
    message: wellFormed(error.message),
    type: wellFormed(error.code ?? error.name),
    nonRetryable: nextRetryDelay === undefined,
    details: [{ taskBackend: detail } satisfies FailureDetail],
    ...(nextRetryDelay !== undefined && { nextRetryDelay }),
  });
  if (error.stack !== undefined) failure.stack = wellFormed(error.stack);
  return failure;
}

/** An unpaired half: with the flag u, pairs are one character and do not match. */
function wellFormed(text: string): string {
  return text.replace(/\p{Cs}/gu, "\ufffd");
}

/** A delay as the server takes it: whole, and not none, which would make a failure final. Core keeps it within what it can count. */
export function retryDelay(delayMs: number): number {
  return Math.max(Math.ceil(delayMs), 1);
}

export const NOT_HERE: ErrorRecord = {
  name: "Error",
  message: "This worker does not know the workflow or its version.",
  code: "NOT_HERE",
  retryable: true,
};

/** What one of ours says; undefined for any other failure. */
export function detailOf(failure: unknown): Detail | undefined {
  if (!(failure instanceof ApplicationFailure)) return undefined;
  return (failure.details?.[0] as Partial<FailureDetail> | undefined)?.taskBackend;
}
