import type { Decision, ErrorRecord } from "@task-backend/core/adapter";
import { boundedDelay, chargedStarts, failureFields, previousFailure, type FailureRecord } from "./mapping.ts";
import { minimalJob, type Claim, type Lane, type NextJob, type Store } from "./store.ts";

/** Carries out core's decision about an attempt, with BullMQ's own operations. */
export class Finisher {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Returns the next claim if the same step made one. Throws BullMQ's error when the lock is lost. */
  async finish(lane: Lane, claim: Claim, decision: Decision, fetchNext: boolean): Promise<NextJob> {
    const { ref, token, data } = claim;
    const { backend } = lane;
    switch (decision.do) {
      case "complete": {
        if (data.parent) return this.#step(lane, claim, { output: JSON.stringify(decision.output) }, fetchNext);
        const { result } = await backend.moveToCompleted(minimalJob(claim), decision.output, undefined as never, token, fetchNext);
        return result as NextJob;
      }
      case "settle": {
        const failure = failureRecord(claim, decision.status, decision.error, decision.attempts);
        if (data.parent) return this.#step(lane, claim, failure, fetchNext);
        const fields = failureFields(failure);
        const { result } = await backend.moveToFailed(minimalJob(claim), fields.failedReason, undefined as never, token, fetchNext, fields);
        return result as NextJob;
      }
      case "retry": {
        const fieldsToUpdate = failureFields(failureRecord(claim, "retrying", decision.error));
        if (decision.delayMs <= 0) {
          await backend.retryJob(ref.id, false, token, { fieldsToUpdate });
          return undefined;
        }
        return (await backend.moveToDelayed(ref.id, Date.now(), boundedDelay(decision.delayMs), token, {
          fieldsToUpdate,
          fetchNext,
        })) as NextJob;
      }
      case "release":
        if (decision.delayMs <= 0) await backend.moveJobFromActiveToWait(ref.id, token);
        else await backend.moveToDelayed(ref.id, Date.now(), boundedDelay(decision.delayMs), token, { skipAttempt: true });
        return undefined;
    }
  }

  async #step(lane: Lane, claim: Claim, ending: { readonly output: string } | FailureRecord, fetchNext: boolean): Promise<NextJob> {
    const next = await this.#store.finishStep(lane, claim, ending, fetchNext);
    return next === "lost" ? undefined : next;
  }
}

function failureRecord({ json }: Claim, status: FailureRecord["status"], error: ErrorRecord, attempts?: number): FailureRecord {
  const startedAtMs = previousFailure(json)?.startedAtMs ?? json.processedOn;
  return { status, attempts: attempts ?? chargedStarts(json) + 1, error, ...(startedAtMs !== undefined && { startedAtMs }) };
}
