import { setTimeout as pause } from "node:timers/promises";
import { Waiters, type Settlement } from "@task-backend/core/adapter";
import { toRef, toRunId, type JobRef } from "./ids.ts";
import { toRecord, type NewJob, type StoredJob } from "./mapping.ts";
import type { OnFinished, Store } from "./store.ts";

/** How often all waits are checked together: the engine's events may be trimmed, or lost with a connection. */
const LOOK_MS = 2_000;
const BATCH = 500;
const AWAY_MS = 500;
/** The number of unfinished runs per queue whose name is remembered. */
const MAX_OPEN = 10_000;

/** All waits of a backend follow the events of their queues. */
export class Waits {
  readonly #store: Store;
  readonly #expired: (job: StoredJob) => boolean;
  /** The timer of the waits also keeps the process alive while there are any. */
  readonly #waiters = new Waiters<Settlement | undefined>((waiting) => this.#arm(waiting));
  readonly #looking = new Set<string>();
  /** For each followed queue, the names of runs that are not known to have finished. If one completes, no read is needed. */
  readonly #open = new Map<string, Map<string, string>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(store: Store, expired: (job: StoredJob) => boolean) {
    this.#store = store;
    this.#expired = expired;
  }

  async wait(id: string, signal: AbortSignal | undefined): Promise<Settlement | undefined> {
    const ref = toRef(id);
    if (!ref) return undefined;
    // The run has not finished since it was submitted or read here, so there is nothing to read.
    if (this.#open.get(ref.queue)?.has(id)) return this.#waiters.follow(id, signal);
    const waiting = this.#waiters.follow(id, signal);
    let over = false;
    const end = (): void => void (over = true);
    waiting.then(end, end);
    // A wait goes on while the store is unreachable.
    while (!over && !(await this.#begin(id, ref))) await pause(AWAY_MS);
    return waiting;
  }

  /** Follows a run's queue, then reads the run, so that no end is missed in between. Returns false when the store is unreachable. */
  async #begin(id: string, ref: JobRef): Promise<boolean> {
    try {
      await this.#store.watch(ref.queue, this.#notice);
      if (!this.#open.has(ref.queue)) this.#open.set(ref.queue, new Map());
      const job = await this.#store.get(ref);
      if (!job || this.#expired(job)) this.#waiters.settle(id, undefined);
      else if (job.finishedOn !== undefined) this.#waiters.settle(id, toRecord(job));
      else if (this.#waiters.has(id)) this.#follows(ref, job.name);
      return true;
    } catch {
      return false;
    }
  }

  rejectAll(error: Error): void {
    this.#waiters.rejectAll(error);
  }

  /** Remembers a new job; called before it is added. If its queue is followed, its end will be noticed. */
  expect({ ref, name }: NewJob): void {
    this.#follows(ref, name);
  }

  #follows(ref: JobRef, name: string): void {
    const open = this.#open.get(ref.queue);
    if (!open) return;
    if (open.size >= MAX_OPEN) open.delete(open.keys().next().value as string);
    open.set(toRunId(ref), name);
  }

  readonly #notice: OnFinished = (queue, job, output) => {
    const open = this.#open.get(queue);
    if (job === undefined) {
      open?.clear();
      return void this.#lookAt(queue);
    }
    const id = toRunId({ queue, id: job });
    const name = open?.get(id);
    open?.delete(id);
    if (!this.#waiters.has(id)) return;
    if (output !== undefined && name !== undefined) this.#waiters.settle(id, { id, name, status: "completed", output });
    else void this.#read([{ queue, id: job }], true);
  };

  /** Reads the waited-for runs of a queue, once for all events that come before the read is sent. */
  async #lookAt(queue: string): Promise<void> {
    if (this.#looking.has(queue) || this.#waiters.size === 0) return;
    this.#looking.add(queue);
    await new Promise((resolve) => setImmediate(resolve));
    this.#looking.delete(queue);
    await this.#read(
      this.#refs().filter((ref) => ref.queue === queue),
      false,
    );
  }

  #refs(): JobRef[] {
    return this.#waiters.ids.map((id) => toRef(id) as JobRef);
  }

  async #read(refs: readonly JobRef[], removed: boolean): Promise<void> {
    try {
      for (let from = 0; from < refs.length; from += BATCH) {
        const batch = refs.slice(from, from + BATCH);
        // A wait resolves with the record of its run.
        for (const { ref, job } of await this.#store.ends(batch, removed)) {
          this.#open.get(ref.queue)?.delete(toRunId(ref));
          this.#waiters.settle(toRunId(ref), job && toRecord(job));
        }
      }
    } catch {
      // The store is unreachable: the next look finds the end.
    }
  }

  #arm(waiting: boolean): void {
    clearInterval(this.#timer);
    this.#timer = waiting ? setInterval(() => void this.#read(this.#refs(), true), LOOK_MS) : undefined;
  }
}
