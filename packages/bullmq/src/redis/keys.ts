import type { JobRef } from "../ids.ts";
import { toRef } from "../ids.ts";
import type { JobData } from "../mapping.ts";

const PROMOTE = ["delayed", "wait", "paused", "meta", "prioritized", "active", "pc", "events", "marker"];

/** Builds the keys of BullMQ and ours for the scripts, and the arguments that belong to them. */
export class Keys {
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** One of BullMQ's own keys of a queue. */
  of(queue: string, name: string): string {
    return `${this.#prefix}:${queue}:${name}`;
  }

  job({ queue, id }: JobRef): string {
    return this.of(queue, id);
  }

  lock(ref: JobRef): string {
    return `${this.job(ref)}:lock`;
  }

  /** The keys of the hash, journal and timers of a workflow run. */
  journal(ref: JobRef): string[] {
    const key = this.job(ref);
    return [`${key}:tb`, `${key}:tb:journal`, `${key}:tb:timers`];
  }

  /** The same keys, and those that are needed to wake the run. */
  workflow(ref: JobRef): string[] {
    return [...this.journal(ref), ...PROMOTE.map((name) => this.of(ref.queue, name))];
  }

  promoteArguments({ queue, id }: JobRef): string[] {
    return [this.of(queue, ""), id];
  }

  /** The keys and arguments of a run's parent workflow; a run without a parent gives its own keys in their place. */
  parent({ parent }: JobData, own: JobRef, entry: string | undefined): { keys: string[]; arguments: (string | number)[] } {
    const ref = (parent && toRef(parent[0])) ?? own;
    return {
      keys: this.workflow(ref),
      arguments: [parent ? parent[1] : "", entry ?? "", ...this.promoteArguments(ref)],
    };
  }
}
