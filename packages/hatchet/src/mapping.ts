import { cancelledRecord, type FailedStatus, type StepOutcome } from "@task-backend/core/adapter";
import type { Completion } from "./durable-log.ts";
import { fromThrown, isObject, META, sorted, type Returned, type Settled } from "./wire.ts";

/** One of Hatchet's texts for a cancelled run. */
export const CANCELLED = "task was cancelled";

/** Hatchet's texts for a run whose workers were lost too often; mostly the text is empty. */
const LOST = /^$|retry|reassign|heartbeat|could not send task to worker/i;

/** The outcome of a run, and the facts about it that it returned. */
export function outcomeOf(
  name: string,
  { payload, isFailure, errorMessage = "" }: Completion,
): { readonly outcome: StepOutcome; readonly settled?: Settled; readonly finishedAtMs?: number } {
  if (!isFailure) {
    // Code that others wrote for Hatchet may return anything.
    if (!isObject(payload) || !isObject(payload[META]) || typeof payload[META]["finishedAtMs"] !== "number")
      return { outcome: { status: "completed", output: sorted(payload ?? null) } };
    const { output, taskBackend: settled } = payload as unknown as Returned;
    return { outcome: { status: "completed", output: sorted(output ?? null) }, settled, finishedAtMs: settled.finishedAtMs };
  }
  const thrown = fromThrown(errorMessage);
  if ("status" in thrown) {
    const { status, error, ...settled } = thrown;
    return { outcome: { status: status as FailedStatus, error }, settled, finishedAtMs: settled.finishedAtMs };
  }
  if (errorMessage === CANCELLED || (errorMessage.length < 80 && /cancelled/i.test(errorMessage)))
    return { outcome: { status: "cancelled", error: cancelledRecord(name) } };
  if (!LOST.test(thrown.message))
    return { outcome: { status: "failed", error: { name: "Error", message: thrown.message, code: "ENGINE_FAILED", retryable: false } } };
  const message =
    `Hatchet has given "${name}" up: too many of its workers were lost (the server's SERVER_MAX_INTERNAL_RETRY_COUNT). ${thrown.message}`.trimEnd();
  return { outcome: { status: "failed", error: { name: "WorkerLostError", message, code: "WORKER_LOST", retryable: false } } };
}
