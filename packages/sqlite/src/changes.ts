import { watch, type FSWatcher } from "node:fs";
import type { Database } from "./database.ts";

/** The net under the file watcher, and the only source where none can be had. */
const POLL_MS = 1_000;
const POLL_UNWATCHED_MS = 50;

/** Tells when other connections have written to the file: by watching its write-ahead log, with a slow poll as the net. */
export class Changes {
  readonly #database: Database;
  readonly #listeners = new Set<() => void>();
  #version: number;
  #watcher: FSWatcher | undefined;
  #poll: NodeJS.Timeout | undefined;
  #scheduled = false;

  constructor(database: Database) {
    this.#database = database;
    this.#version = database.dataVersion;
  }

  start(): void {
    if (this.#database.file === ":memory:") return;
    let pollMs = POLL_MS;
    try {
      this.#watcher = watch(`${this.#database.file}-wal`, { persistent: false }, () => this.#schedule());
      this.#watcher.on("error", () => this.#watcher?.close());
    } catch {
      pollMs = POLL_UNWATCHED_MS;
    }
    this.#poll = setInterval(() => this.#check(), pollMs).unref();
  }

  /** While something waits for a change, the process must not end for lack of other work. */
  keepAlive(on: boolean): void {
    if (on) this.#poll?.ref();
    else this.#poll?.unref();
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  stop(): void {
    this.#watcher?.close();
    clearInterval(this.#poll);
    this.#listeners.clear();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#check());
  }

  #check(): void {
    this.#scheduled = false;
    if (this.#listeners.size === 0) return;
    try {
      const version = this.#database.dataVersion;
      if (version === this.#version) return;
      this.#version = version;
    } catch {
      // Locked or closing: the next change or poll looks again.
      return;
    }
    for (const listener of this.#listeners) listener();
  }
}
