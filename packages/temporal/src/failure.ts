import { ApplicationFailure } from "@temporalio/common";
import type { ErrorRecord } from "@task-backend/core/adapter";
import type { FailureDetail } from "./wire.ts";

/*
 * Our failures, as attempts and the interpreter throw and read them. Bundled for the sandbox as well.
 */

type Detail = FailureDetail["taskBackend"];

/** A failure of ours. With a delay Temporal retries after it; without one the failure is final. */
export function failureOf(detail: Detail, nextRetryDelay?: number): ApplicationFailure {
  const { error } = detail;
  const failure = ApplicationFailure.create({
    // The failure's own fields cannot hold half surrogates; the record in its details has the original text.
    message: wellFormed(error.message),
    type: wellFormed(error.code ?? error.name),
    nonRetryable: nextRetryDelay === undefined,
    details: [{ taskBackend: detail } satisfies FailureDetail],
    ...(nextRetryDelay !== undefined && { nextRetryDelay }),
  });
  if (error.stack !== undefined) failure.stack = wellFormed(error.stack);
  return failure;
}

/** Replaces unpaired halves: with the flag u, a pair is one character and does not match. */
function wellFormed(text: string): string {
  return text.replace(/\p{Cs}/gu, "\ufffd");
}

/** A delay that the server accepts: whole and above 0, because 0 would make a failure final. Core limits how long it is. */
export function retryDelay(delayMs: number): number {
  return Math.max(Math.ceil(delayMs), 1);
}

export const NOT_HERE: ErrorRecord = {
  name: "Error",
  message: "This worker does not know the workflow or its version.",
  code: "NOT_HERE",
  retryable: true,
};

/** The detail of a failure of ours; undefined for any other failure. */
export function detailOf(failure: unknown): Detail | undefined {
  if (!(failure instanceof ApplicationFailure)) return undefined;
  return (failure.details?.[0] as Partial<FailureDetail> | undefined)?.taskBackend;
}
