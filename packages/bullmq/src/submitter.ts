import { UnsupportedCapabilityError, type RunRequest, type SubmitOutcome } from "@task-backend/core/adapter";
import { toQueue, toRunId, type JobRef } from "./ids.ts";
import { MAX_DUE_MS, toJob, type NewJob, type StoredJob } from "./mapping.ts";
import type { Store } from "./store.ts";

/** Adds jobs to BullMQ's queues. The id of a run with a key follows from the key, so that BullMQ itself keeps it unique. */
export class Submitter {
  readonly #store: Store;
  readonly #expired: (job: StoredJob) => boolean;
  readonly #onNew: (job: NewJob) => void;

  /** @param onNew called with each job whose id is new, before it is added */
  constructor(store: Store, expired: (job: StoredJob) => boolean, onNew: (job: NewJob) => void) {
    this.#store = store;
    this.#onNew = onNew;
    this.#expired = expired;
  }

  /** Adds all new runs together and in order: runs of equal priority are served in the order of submission. */
  async submit(requests: readonly RunRequest[]): Promise<readonly SubmitOutcome[]> {
    const submissions = await Promise.all(requests.map((request) => this.#prepare(request)));
    const fresh = submissions.flatMap((submission) => ("job" in submission ? [submission.job] : []));
    if (fresh.length > 0) await this.#store.add(fresh);
    return Promise.all(
      submissions.map(async (submission): Promise<SubmitOutcome> => {
        if (!("job" in submission)) return submission;
        const { job, request } = submission;
        const id = toRunId(job.ref);
        if (request.idempotencyKey === undefined) return { id, deduplicated: false };
        const added = await this.#store.get(job.ref);
        if (added) return { id, deduplicated: added.data.submission !== job.data.submission };
        // The run was settled and pruned between the two calls, or others submitted it at the same moment.
        return (await this.submit([request]))[0] as SubmitOutcome;
      }),
    );
  }

  /** Prepares a submission before any job is added: a refusal, the existing run of its key, or the job to add. */
  async #prepare(request: RunRequest): Promise<SubmitOutcome | { readonly job: NewJob; readonly request: RunRequest }> {
    if (tooLate(request)) {
      const reason = `BullMQ's delays reach to ${new Date(MAX_DUE_MS).toISOString()}; give an earlier time`;
      return { error: new UnsupportedCapabilityError("bullmq", "delay", reason) };
    }
    const job = toJob(request);
    if (request.idempotencyKey === undefined) this.#onNew(job);
    else {
      // A workflow submitted by name only waits in the other lane: its key counts, too.
      const known = (await this.#unexpired(sibling(job.ref, request))) ?? (await this.#unexpired(job.ref));
      if (known) return { id: toRunId(known.ref), deduplicated: true };
    }
    return { job, request };
  }

  async #unexpired(ref: JobRef | undefined): Promise<StoredJob | undefined> {
    const job = ref && (await this.#store.get(ref));
    if (!job || !this.#expired(job)) return job;
    await this.#store.queue(job.ref.queue).remove(job.ref.id);
    return undefined;
  }
}

function sibling({ id }: JobRef, { queue, kind, definition }: RunRequest): JobRef | undefined {
  if (kind === "workflow") return { queue: toQueue(queue, "task"), id };
  return definition ? undefined : { queue: toQueue(queue, "workflow"), id };
}

function tooLate({ runAtMs }: RunRequest): boolean {
  return runAtMs !== undefined && runAtMs > MAX_DUE_MS;
}
