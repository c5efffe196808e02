import type { JobRef } from "../ids.ts";
import { toRef } from "../ids.ts";
import type { JobData } from "../mapping.ts";

const PROMOTE = ["delayed", "wait", "paused", "meta", "prioritized", "active", "pc", "events", "marker"];

/** The keys of BullMQ and ours, and the arguments that go with them, as the scripts take them. */
export class Keys {
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** One of BullMQ's own of a queue. */
  of(queue: string, name: string): string {
    return `${this.#prefix}:${queue}:${name}`;
  }

  job({ queue, id }: JobRef): string {
    return this.of(queue, id);
  }

  lock(ref: JobRef): string {
    return `${this.job(ref)}:lock`;
  }

  /** Hash, journal and timers of a workflow run. */
  journal(ref: JobRef): string[] {
    const key = this.job(ref);
    return [`${key}:tb`, `${key}:tb:journal`, `${key}:tb:timers`];
  }

  /** The same, and what it takes to wake it. */
  workflow(ref: JobRef): string[] {
    return [...this.journal(ref), ...PROMOTE.map((name) => this.of(ref.queue, name))];
  }

  promoteArguments({ queue, id }: JobRef): string[] {
    return [this.of(queue, ""), id];
  }

  /** Of the workflow that started a run; where there is none, the run's own fill the places. */
  parent({ parent }: JobData, own: JobRef, entry: string | undefined): { keys: string[]; arguments: (string | number)[] } {
    const ref = (parent && toRef(parent[0])) ?? own;
    return {
      keys: this.workflow(ref),
      arguments: [parent ? parent[1] : "", entry ?? "", ...this.promoteArguments(ref)],
    };
  }
}
