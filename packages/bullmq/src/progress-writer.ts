import type { Json } from "@task-backend/core/adapter";

const PROGRESS_EVERY_MS = 50;

/** Writes progress at intervals: only the latest value, not each one. */
export class ProgressWriter {
  readonly #write: (value: string) => Promise<void>;
  #value: Json | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(write: (value: string) => Promise<void>) {
    this.#write = write;
  }

  set(value: Json): void {
    this.#value = value;
    this.#timer ??= setTimeout(() => void this.flush(), PROGRESS_EVERY_MS);
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#value === undefined) return;
    const value = JSON.stringify(this.#value);
    this.#value = undefined;
    // A value that is lost with the connection is replaced by the next one.
    await this.#write(value).catch(() => {});
  }
}
