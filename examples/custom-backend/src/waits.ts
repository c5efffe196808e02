import { setTimeout as pause } from "node:timers/promises";
import { BackendUnavailableError, type RunRecord } from "@task-backend/core/adapter";
import type { Database } from "./database.ts";

const AWAY_MS = 500;

/** All waits of a backend follow the one listening connection. */
export class Waits {
  readonly #read: (id: string) => Promise<RunRecord | undefined>;
  readonly #looks = new Map<string, Set<() => void>>();
  readonly #closing = new AbortController();

  constructor(database: Database, read: (id: string) => Promise<RunRecord | undefined>) {
    this.#read = read;
    database.onNews((news) => {
      if (news?.what === "settled") for (const look of this.#looks.get(news.id) ?? []) look();
      else if (news === undefined) for (const looks of this.#looks.values()) for (const look of looks) look();
    });
  }

  async wait(id: string, abort: AbortSignal | undefined): Promise<RunRecord | undefined> {
    const aborts = AbortSignal.any([this.#closing.signal, ...(abort ? [abort] : [])]);
    for (;;) {
      // It listens before it reads, so that an end in between is not missed.
      const { news, forget } = this.#listen(id, aborts);
      try {
        const record = await this.#read(id);
        if (!record || record.finishedAtMs !== undefined) return record;
        await news;
      } catch (error) {
        // A wait goes on while the server is unreachable.
        if (aborts.aborted || !(error instanceof BackendUnavailableError)) throw error;
        await pause(AWAY_MS);
      } finally {
        forget();
      }
    }
  }

  close(reason: Error): void {
    this.#closing.abort(reason);
  }

  #listen(id: string, abort: AbortSignal): { readonly news: Promise<void>; readonly forget: () => void } {
    const looks = this.#looks.get(id) ?? new Set();
    this.#looks.set(id, looks);
    let forget = (): void => {};
    const news = new Promise<void>((resolve, reject) => {
      const stop = (): void => reject(abort.reason as Error);
      if (abort.aborted) stop();
      abort.addEventListener("abort", stop);
      looks.add(resolve);
      forget = (): void => {
        abort.removeEventListener("abort", stop);
        looks.delete(resolve);
        if (looks.size === 0 && this.#looks.get(id) === looks) this.#looks.delete(id);
      };
    });
    news.catch(() => {});
    return { news, forget };
  }
}
