import { setTimeout as pause } from "node:timers/promises";
import { Waiters, type Settlement } from "@task-backend/core/adapter";
import { toRef, toRunId, type JobRef } from "./ids.ts";
import { toRecord, type NewJob, type StoredJob } from "./mapping.ts";
import type { OnFinished, Store } from "./store.ts";

/** The net under the engine's events, which may be trimmed or lost with a connection: all waits are looked at together. */
const LOOK_MS = 2_000;
const BATCH = 500;
const AWAY_MS = 500;
/** Runs of a queue whose name is remembered until they end. */
const MAX_OPEN = 10_000;

/** All waits of a backend follow the events of their queues. */
export class Waits {
  readonly #store: Store;
  readonly #expired: (job: StoredJob) => boolean;
  /** The timer also keeps the process alive, as long as something is waited for. */
  readonly #waiters = new Waiters<Settlement | undefined>((waiting) => this.#arm(waiting));
  readonly #looking = new Set<string>();
  /** By queue that is followed: the names of runs that have not finished, as far as is known. Their ends need no read. */
  readonly #open = new Map<string, Map<string, string>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(store: Store, expired: (job: StoredJob) => boolean) {
    this.#store = store;
    this.#expired = expired;
  }

  async wait(id: string, signal: AbortSignal | undefined): Promise<Settlement | undefined> {
    const ref = toRef(id);
    if (!ref) return undefined;
    // Nothing has finished it since it was submitted or read here: there is nothing to read.
    if (this.#open.get(ref.queue)?.has(id)) return this.#waiters.follow(id, signal);
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

  /** To be called before a new job is added: as long as its queue is followed, its end is not missed. */
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

  /** Reads what is waited for in a queue, once for all that happens before the read is sent. */
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
        // A wait ends with the record of its run.
        for (const { ref, job } of await this.#store.ends(batch, removed)) {
          this.#open.get(ref.queue)?.delete(toRunId(ref));
          this.#waiters.settle(toRunId(ref), job && toRecord(job));
        }
      }
    } catch {
      // Unreachable for now: the next look finds it.
    }
  }

  #arm(waiting: boolean): void {
    clearInterval(this.#timer);
    this.#timer = waiting ? setInterval(() => void this.#read(this.#refs(), true), LOOK_MS) : undefined;
  }
}
