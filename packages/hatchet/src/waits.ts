import { setMaxListeners } from "node:events";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { Json, RunRecord, Settlement } from "@task-backend/core/adapter";
import { isAway, isInternal, toUnavailable } from "./client.ts";
import { outcomeOf } from "./mapping.ts";
import { readRecord } from "./records.ts";
import { RunEvents, type RunEnd } from "./run-events.ts";

/** So soon after a run was submitted here, the news of its end is waited for before it is read. */
const FRESH_MS = 100;
const AWAY_MS = 500;
/** The news of an end may come before it can be read. */
const SETTLES_MS = 20;

export interface WaitsOptions {
  readonly where: string;
  readonly retentionMs: number;
}

/** All waits of a backend follow the one stream of ends, which carries the outputs. */
export class Waits {
  readonly #client: HatchetClient;
  readonly #options: WaitsOptions;
  readonly #events: RunEvents;
  readonly #closing = new AbortController();
  /** By run id, oldest first: what was submitted here a moment ago. */
  readonly #fresh = new Map<string, { readonly name: string; readonly atMs: number }>();

  constructor(client: HatchetClient, options: WaitsOptions) {
    this.#client = client;
    this.#options = options;
    this.#events = new RunEvents(client);
    // Each wait listens to it.
    setMaxListeners(0, this.#closing.signal);
  }

  /** To be called with what was just submitted: a wait for it has nothing to read yet. */
  expect(id: string, name: string): void {
    const atMs = Date.now();
    for (const [old, { atMs: then }] of this.#fresh) {
      if (then > atMs - FRESH_MS) break;
      this.#fresh.delete(old);
    }
    this.#fresh.set(id, { name, atMs });
  }

  async wait(id: string, signal: AbortSignal | undefined): Promise<Settlement | undefined> {
    const { where, retentionMs } = this.#options;
    // The stream tells of what ends from now on.
    const ended = this.#end(id, signal);
    ended.catch(() => {});
    const fresh = this.#fresh.get(id);
    this.#fresh.delete(id);
    const known = fresh && fresh.atMs > Date.now() - FRESH_MS && settlementOf(id, fresh.name, await within(FRESH_MS, ended));
    if (known) return known;
    for (let over = false; ;) {
      let record: RunRecord | undefined;
      try {
        record = await readRecord(this.#client, id, retentionMs);
      } catch (error) {
        if (this.#closing.signal.aborted || signal?.aborted || !(isAway(error) || isInternal(error))) throw toUnavailable(error, where);
        // A wait goes on when the server does.
        await pause(AWAY_MS);
        continue;
      }
      if (!record) return undefined;
      if (record.finishedAtMs !== undefined) return record;
      if (over) await pause(SETTLES_MS);
      const settlement = settlementOf(id, record.name, await ended);
      if (settlement) return settlement;
      over = true;
    }
  }

  close(reason: Error): void {
    this.#closing.abort(reason);
    this.#events.close();
  }

  #end(id: string, signal: AbortSignal | undefined): Promise<RunEnd> {
    return new Promise((resolve, reject) => {
      const stop = this.#events.onEnd(id, (end) => {
        for (const one of [signal, this.#closing.signal]) one?.removeEventListener("abort", abort);
        resolve(end);
      });
      const abort = (): void => {
        stop();
        reject((signal?.aborted ? signal : this.#closing.signal).reason as Error);
      };
      for (const one of [signal, this.#closing.signal]) {
        if (one?.aborted) abort();
        one?.addEventListener("abort", abort, { once: true });
      }
    });
  }
}

/** Undefined where the news does not tell everything: the engine has settled the run, or the output was too large for the stream. */
function settlementOf(id: string, name: string, end: RunEnd | undefined): Settlement | undefined {
  const [only, ...others] = end ?? [];
  if (!only || others.length > 0) return undefined;
  const { output, error } = only;
  const { outcome, settled } = outcomeOf(name, {
    isFailure: output === undefined,
    ...(output !== undefined && { payload: JSON.parse(output) as Json }),
    ...(error !== undefined && { errorMessage: error }),
  });
  return settled && { id, name, ...outcome };
}

async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), ms)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
