import { UnsupportedCapabilityError, type RunRequest, type SubmitOutcome } from "@task-backend/core/adapter";
import { toQueue, toRunId, type JobRef } from "./ids.ts";
import { MAX_DUE_MS, toJob, type NewJob, type StoredJob } from "./mapping.ts";
import type { Store } from "./store.ts";

/** Adds jobs by BullMQ's queues. The id of a keyed run follows from its key, so that BullMQ itself keeps it single. */
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

  async submit(requests: readonly RunRequest[]): Promise<readonly SubmitOutcome[]> {
    const [only] = requests;
    if (requests.length === 1 && only) return [await this.#submitOne(only)];
    const plain: NewJob[] = [];
    const outcomes = requests.map(async (request): Promise<SubmitOutcome> => {
      if (request.idempotencyKey !== undefined || tooLate(request)) return this.#submitOne(request);
      const job = toJob(request);
      this.#onNew(job);
      plain.push(job);
      return { id: toRunId(job.ref), deduplicated: false };
    });
    await this.#store.add(plain);
    return Promise.all(outcomes);
  }

  async #submitOne(request: RunRequest): Promise<SubmitOutcome> {
    if (tooLate(request)) {
      const reason = `BullMQ's delays reach to ${new Date(MAX_DUE_MS).toISOString()}; give an earlier time`;
      return { error: new UnsupportedCapabilityError("bullmq", "delay", reason) };
    }
    const job = toJob(request);
    if (request.idempotencyKey !== undefined) return this.#submitKeyed(job, request);
    this.#onNew(job);
    await this.#store.add([job]);
    return { id: toRunId(job.ref), deduplicated: false };
  }

  async #submitKeyed(job: NewJob, request: RunRequest): Promise<SubmitOutcome> {
    for (;;) {
      // Known by name only, a workflow waits in the other lane: its key counts as well.
      const known = (await this.#unexpired(sibling(job.ref, request))) ?? (await this.#unexpired(job.ref));
      if (known) return { id: toRunId(known.ref), deduplicated: true };
      await this.#store.add([job]);
      const added = await this.#store.get(job.ref);
      // Settled and pruned between the two calls, or submitted by others in the same moment.
      if (added) return { id: toRunId(job.ref), deduplicated: added.data.submission !== job.data.submission };
    }
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
