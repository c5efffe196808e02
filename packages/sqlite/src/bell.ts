import { closeSync, constants, fstatSync, openSync, statSync, watch, writeSync, type FSWatcher } from "node:fs";

const STROKE = Buffer.from("1");

/**
 * A small file beside the database by which processes tell each other of commits: whoever has committed writes its one byte, and all
 * watch it. The write-ahead log would tell too early, before the commit in it counts.
 */
export class Bell {
  readonly #database: string;
  readonly #path: string;
  readonly #heard: () => void;
  #handle: number | undefined;
  #watcher: FSWatcher | undefined;

  constructor(database: string, heard: () => void) {
    this.#database = database;
    this.#path = `${database}-bell`;
    this.#heard = heard;
  }

  /** Whether it is heard: not where the folder cannot be written or watched. */
  open(): boolean {
    this.close();
    try {
      // For those who may use the database, as its log.
      this.#handle = openSync(this.#path, constants.O_RDWR | constants.O_CREAT, statSync(this.#database).mode & 0o666);
      this.#watcher = watch(this.#path, { persistent: false }, () => this.#heard());
      this.#watcher.on("error", () => this.close());
      return true;
    } catch {
      this.close();
      return false;
    }
  }

  /** Tells all processes of a commit. */
  ring(): void {
    if (this.#handle === undefined) return;
    try {
      writeSync(this.#handle, STROKE, 0, 1, 0);
    } catch {
      // The disk may be full. The others look by themselves each second.
    }
  }

  /** Whether it is still the file that a new process would open. */
  get whole(): boolean {
    if (this.#handle === undefined || this.#watcher === undefined) return false;
    try {
      return fstatSync(this.#handle).nlink > 0;
    } catch {
      return false;
    }
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    if (this.#handle !== undefined) closeSync(this.#handle);
    this.#handle = undefined;
  }
}
