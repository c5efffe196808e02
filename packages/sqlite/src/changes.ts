import { Bell } from "./bell.ts";
import type { Database } from "./database.ts";
import { isBusy } from "./errors.ts";
import { Listeners } from "./listeners.ts";

/** The net under the bell, also for a listener that met a locked file; the only source where there is no bell. */
const POLL_MS = 1_000;
const POLL_WITHOUT_BELL_MS = 50;

/** Tells when other connections have written to the file: by a bell that rings after each commit, with a slow poll as the net. */
export class Changes {
  readonly #database: Database;
  readonly #listeners: Listeners;
  readonly #bell: Bell;
  #version: number;
  #poll: NodeJS.Timeout | undefined;
  #look: NodeJS.Immediate | undefined;
  #kept = false;

  /** @param report told of what a listener throws */
  constructor(database: Database, report: (error: unknown) => void) {
    this.#database = database;
    this.#listeners = new Listeners(report);
    this.#bell = new Bell(database.file, () => this.#onRing());
    this.#version = database.dataVersion;
  }

  start(): void {
    if (this.#database.file === ":memory:") return;
    this.#pollEach(this.#bell.open() ? POLL_MS : POLL_WITHOUT_BELL_MS);
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

  /** Tells other processes that something was committed here. */
  ring(): void {
    this.#bell.ring();
  }

  /** Tells those who listen here that something was committed. */
  tell(): void {
    this.#listeners.tell();
  }

  stop(): void {
    this.#bell.close();
    clearInterval(this.#poll);
    clearImmediate(this.#look);
    this.#listeners.clear();
  }

  #pollEach(ms: number): void {
    clearInterval(this.#poll);
    this.#poll = setInterval(() => this.#onPoll(ms), ms);
    this.keepAlive(this.#kept);
  }

  #onPoll(everyMs: number): void {
    // Somebody has removed the bell, or it cannot be watched any more.
    if (everyMs === POLL_MS && !this.#bell.whole && !this.#bell.open()) this.#pollEach(POLL_WITHOUT_BELL_MS);
    this.tell();
  }

  /** A burst of rings is one look. */
  #onRing(): void {
    this.#look ??= setImmediate(() => {
      this.#look = undefined;
      this.#check();
    });
  }

  #check(): void {
    if (this.#listeners.size === 0) return;
    try {
      const version = this.#database.dataVersion;
      if (version === this.#version) return;
      this.#version = version;
    } catch (error) {
      // Locked: the next ring or poll finds it. Whatever else it is, the listeners meet it as well, and say so.
      if (isBusy(error)) return;
    }
    this.tell();
  }
}
