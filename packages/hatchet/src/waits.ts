import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { Json, RunRecord, Settlement } from "@task-backend/core/adapter";
import type { Accepted } from "./accepted.ts";
import { isAway, isInternal, toUnavailable } from "./errors.ts";
import type { Completion } from "./durable-log.ts";
import { CANCELLED, outcomeOf } from "./mapping.ts";
import { readRecord } from "./records.ts";
import { RunEvents, type RunEnd } from "./run-events.ts";

/** For this long after a run was submitted here, a wait expects the news of its end before it reads the run. */
const FRESH_MS = 100;
const AWAY_MS = 500;
/** The first pause before a run is read again: the news of its end may come before the record. */
const SETTLES_MS = 20;
/** How often a wait reads its run: the stream reports ends, and not records that the server has deleted. */
const LOOKS_EVERY_MS = 60_000;
/** A ready-made reason: the default one is a new exception each time. */
const OVER = new Error("The wait is over.");
/** How long the stream may take to report an end: it looks once a second for ends that it missed. */
const TELLS_MS = 5_000;

export interface WaitsOptions {
  readonly where: string;
  readonly retentionMs: number;
}

/** All waits of a backend follow one stream of ends, which carries the outputs. */
export class Waits {
  readonly #client: HatchetClient;
  readonly #accepted: Accepted;
  readonly #options: WaitsOptions;
  readonly #events: RunEvents;
  #closed: Error | undefined;

  constructor(client: HatchetClient, accepted: Accepted, options: WaitsOptions) {
    this.#client = client;
    this.#accepted = accepted;
    this.#options = options;
    this.#events = new RunEvents(client);
  }

  /** Waits for a run; undefined when there is none, and when its record has been deleted, which the server does not report. */
  async wait(id: string, signal: AbortSignal | undefined): Promise<Settlement | undefined> {
    const over = new AbortController();
    const given = signal ? AbortSignal.any([signal, over.signal]) : over.signal;
    try {
      return await this.#wait(id, given);
    } finally {
      over.abort(OVER);
    }
  }

  async #wait(id: string, signal: AbortSignal): Promise<Settlement | undefined> {
    const { where } = this.#options;
    // The stream reports ends from now on.
    const ended = this.#end(id, signal);
    ended.catch(() => {});
    const fresh = this.#accepted.within(FRESH_MS, id);
    const known = fresh !== undefined && settlementOf(id, fresh, await within(FRESH_MS, ended));
    if (known) return known;
    for (let settlesMs = 0; ;) {
      let record: RunRecord | undefined;
      try {
        record = await this.read(id);
      } catch (error) {
        if (this.#closed) throw this.#closed;
        if (signal.aborted || !(isAway(error) || isInternal(error))) throw toUnavailable(error, where);
        // A wait goes on while the server is unreachable.
        await Promise.race([pause(AWAY_MS), ended]);
        continue;
      }
      if (!record) return undefined;
      if (record.finishedAtMs !== undefined) return record;
      if (settlesMs > 0) await pause(settlesMs);
      const end = await within(LOOKS_EVERY_MS, ended);
      if (!end) continue;
      const settlement = settlementOf(id, record.name, end);
      if (settlement) return settlement;
      settlesMs = Math.min(Math.max(2 * settlesMs, SETTLES_MS), AWAY_MS);
    }
  }

  /** Reads a record; undefined for unknown ids and past the retention. */
  read(id: string): Promise<RunRecord | undefined> {
    return readRecord(this.#client, id, this.#accepted, this.#options.retentionMs, this.#workersEnd);
  }

  /** The end that a worker reported: within about a second the stream reports all ends of a run, even old ones. */
  readonly #workersEnd = async (id: string): Promise<Completion | undefined> => {
    const late = new AbortController();
    const ended = this.#end(id, late.signal).catch(() => undefined);
    const end = await within(TELLS_MS, ended);
    late.abort();
    return toCompletion(end?.find(isWorkers));
  };

  close(reason: Error): void {
    this.#closed = reason;
    this.#events.close(reason);
  }

  #end(id: string, signal: AbortSignal): Promise<RunEnd> {
    return this.#closed ? Promise.reject(this.#closed) : this.#events.end(id, signal);
  }
}

/** The settlement in the news of an end; undefined if it is incomplete: the engine settled the run, or the output was too large. */
function settlementOf(id: string, name: string, end: RunEnd | undefined): Settlement | undefined {
  const completion = completionOf(end);
  if (!completion) return undefined;
  const { outcome, settled } = outcomeOf(name, completion);
  return settled && { id, name, ...outcome };
}

/** The end that counts: a run that is cancelled as it ends has two, and the worker's goes first. */
function completionOf(end: RunEnd | undefined): Completion | undefined {
  return toCompletion(end?.find(isWorkers) ?? end?.[0]);
}

/** Whether a worker reported this end: for a cancelled run the stream has no text. */
const isWorkers = ({ output, error = "" }: RunEnd[number]): boolean => output !== undefined || error !== "";

function toCompletion({ output, error }: RunEnd[number] = {}): Completion | undefined {
  if (output !== undefined) return { isFailure: false, payload: parsed(output) };
  return error === undefined ? undefined : { isFailure: true, errorMessage: error || CANCELLED };
}

/** The output of other programs need not be JSON. */
function parsed(output: string): Json {
  try {
    return JSON.parse(output) as Json;
  } catch {
    return output;
  }
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
