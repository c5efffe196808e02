import { setTimeout as pause } from "node:timers/promises";
import { Waiters, type Settlement } from "@task-backend/core/adapter";
import { toRef, toRunId, type JobRef } from "./ids.ts";
import { toRecord, type NewJob, type StoredJob } from "./mapping.ts";
import type { OnFinished, Store } from "./store.ts";

/** The net under the engine's events, which may be trimmed or lost with a connection: all waits are looked at together. */
const LOOK_MS = 2_000;
const BATCH = 500;
const AWAY_MS = 500;
const FRESH = 10_000;

/** All waits of a backend follow the events of their queues. */
export class Waits {
  readonly #store: Store;
  readonly #expired: (job: StoredJob) => boolean;
  /** The timer also keeps the process alive, as long as something is waited for. */
  readonly #waiters = new Waiters<Settlement | undefined>((waiting) => this.#arm(waiting));
  readonly #looking = new Set<string>();
  /** By queue that is followed: the runs that are being submitted here and have not finished, as far as is known. */
  readonly #fresh = new Map<string, Map<string, NewJob>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(store: Store, expired: (job: StoredJob) => boolean) {
    this.#store = store;
    this.#expired = expired;
  }

  async wait(id: string, signal: AbortSignal | undefined): Promise<Settlement | undefined> {
    const ref = toRef(id);
    if (!ref) return undefined;
    // Nothing has finished it since it was submitted here: there is nothing to read.
    if (this.#fresh.get(ref.queue)?.has(id)) return this.#waiters.follow(id, signal);
    const waiting = this.#waiters.follow(id, signal);
    let over = false;
    const end = (): void => void (over = true);
    waiting.then(end, end);
    // A wait goes on when the store does.
    while (!over && !(await this.#begin(id, ref))) await pause(AWAY_MS);
    return waiting;
  }

  /** Answers whether the store could be asked. Followed before it is read: what settles in between is then seen. */
  async #begin(id: string, ref: JobRef): Promise<boolean> {
    try {
      await this.#store.watch(ref.queue, this.#notice);
      if (!this.#fresh.has(ref.queue)) this.#fresh.set(ref.queue, new Map());
      const job = await this.#store.get(ref);
      if (!job || this.#expired(job)) this.#waiters.settle(id, undefined);
      else if (job.finishedOn !== undefined) this.#waiters.settle(id, toRecord(job));
      return true;
    } catch {
      return false;
    }
  }

  rejectAll(error: Error): void {
    this.#waiters.rejectAll(error);
  }

  /** To be called before a new job is added: as long as its queue is followed, its end is not missed. */
  expect(job: NewJob): void {
    const fresh = this.#fresh.get(job.ref.queue);
    if (!fresh) return;
    if (fresh.size >= FRESH) fresh.delete(fresh.keys().next().value as string);
    fresh.set(toRunId(job.ref), job);
  }

  readonly #notice: OnFinished = (queue, job, output) => {
    const fresh = this.#fresh.get(queue);
    if (job === undefined) {
      fresh?.clear();
      return void this.#lookAt(queue);
    }
    const id = toRunId({ queue, id: job });
    const name = fresh?.get(id)?.name;
    fresh?.delete(id);
    if (!this.#waiters.has(id)) return;
    if (output !== undefined && name !== undefined) this.#waiters.settle(id, { id, name, status: "completed", output });
    else void this.#read([{ queue, id: job }]);
  };

  /** Reads what is waited for in a queue, once for all that happens before the read is sent. */
  async #lookAt(queue: string): Promise<void> {
    if (this.#looking.has(queue) || this.#waiters.size === 0) return;
    this.#looking.add(queue);
    await new Promise((resolve) => setImmediate(resolve));
    this.#looking.delete(queue);
    await this.#read(this.#refs().filter((ref) => ref.queue === queue));
  }

  #refs(): JobRef[] {
    return this.#waiters.ids.map((id) => toRef(id) as JobRef);
  }

  async #read(refs: readonly JobRef[]): Promise<void> {
    try {
      for (let from = 0; from < refs.length; from += BATCH) {
        const batch = refs.slice(from, from + BATCH);
        for (const [index, end] of (await this.#store.ends(batch)).entries()) {
          // A wait ends with the record of its run.
          if (end !== "unfinished") this.#waiters.settle(toRunId(batch[index] as JobRef), end === "unknown" ? undefined : toRecord(end));
        }
      }
    } catch {
      // Unreachable for now: the next look finds it.
    }
  }

  #arm(waiting: boolean): void {
    clearInterval(this.#timer);
    this.#timer = waiting ? setInterval(() => void this.#read(this.#refs()), LOOK_MS) : undefined;
  }
}
