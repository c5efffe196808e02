import { watch, type FSWatcher } from "node:fs";
import type { Database } from "./database.ts";
import { Listeners } from "./listeners.ts";

/** The net under the file watcher, also for a listener that met a locked file; the only source where there is no watcher. */
const POLL_MS = 1_000;
const POLL_UNWATCHED_MS = 50;
/** A commit is seen in the log before it counts: after a look that finds nothing new come others, this much later each. */
const LOOK_AGAIN_MS = [1, 1, 2, 4, 8, 16, 32];

/** Tells when other connections have written to the file: by watching its write-ahead log, with a slow poll as the net. */
export class Changes {
  readonly #database: Database;
  readonly #listeners: Listeners;
  #version: number;
  #watcher: FSWatcher | undefined;
  #poll: NodeJS.Timeout | undefined;
  #look: NodeJS.Immediate | NodeJS.Timeout | undefined;
  #looks = 0;
  #kept = false;

  /** @param report told of what a listener throws */
  constructor(database: Database, report: (error: unknown) => void) {
    this.#database = database;
    this.#listeners = new Listeners(report);
    this.#version = database.dataVersion;
  }

  start(): void {
    if (this.#database.file === ":memory:") return;
    try {
      this.#watcher = watch(`${this.#database.file}-wal`, { persistent: false }, () => this.#onWrite());
      this.#watcher.on("error", () => this.#unwatch());
      this.#pollEach(POLL_MS);
    } catch {
      this.#pollEach(POLL_UNWATCHED_MS);
    }
  }

  /** While something waits for a change, the process must not end for lack of other work. */
  keepAlive(on: boolean): void {
    this.#kept = on;
    if (on) this.#poll?.ref();
    else this.#poll?.unref();
  }

  subscribe(listener: () => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Something was committed here. */
  tell(): void {
    this.#listeners.tell();
  }

  stop(): void {
    this.#watcher?.close();
    clearInterval(this.#poll);
    clearTimeout(this.#look as NodeJS.Timeout | undefined);
    this.#listeners.clear();
  }

  /** A watcher that has failed tells of nothing more. */
  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#pollEach(POLL_UNWATCHED_MS);
  }

  #pollEach(ms: number): void {
    clearInterval(this.#poll);
    this.#poll = setInterval(() => this.tell(), ms);
    this.keepAlive(this.#kept);
  }

  /** The log was written to. A burst of writes is one row of looks, which begins anew with each. */
  #onWrite(): void {
    this.#looks = 0;
    this.#look ??= setImmediate(() => this.#lookAgain());
  }

  #lookAgain(): void {
    // What was found may be the commit before the one that this write belongs to: only a row of looks without any ends it.
    if (this.#check()) this.#looks = 0;
    const afterMs = LOOK_AGAIN_MS[this.#looks++];
    this.#look = afterMs === undefined ? undefined : setTimeout(() => this.#lookAgain(), afterMs).unref();
  }

  /** Whether there was something new. */
  #check(): boolean {
    if (this.#listeners.size === 0) return false;
    try {
      const version = this.#database.dataVersion;
      if (version === this.#version) return false;
      this.#version = version;
    } catch {
      // Locked or closing: the next look or poll finds it.
      return false;
    }
    this.tell();
    return true;
  }
}
