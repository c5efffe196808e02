import { errorRecord } from "../values/error-record.ts";
import { Lru } from "../values/lru.ts";
import type { JournalEntry, RunId, TickResult, WorkerRuntime } from "../port/port.ts";
import type { Headers, Json } from "../values/json.ts";

/** The run that a worker holds for a tick. */
export interface WorkflowRun {
  readonly id: RunId;
  readonly name: string;
  readonly version?: string;
  readonly queue: string;
  readonly input: Json;
  readonly headers: Headers;
  readonly startedAtMs: number;
  /** Ticks in a row that ended with the loss of their worker. */
  readonly lostTicks?: number;
}

/** A workflow function that kills its worker each time must not go round for ever. */
const MAX_LOST_TICKS = 10;

/** The journal as it stands, from an entry on. */
export interface JournalSlice {
  readonly entries: readonly JournalEntry[];
  /** Entries that the last committed tick had been given. */
  readonly seen: number;
  /** Commands on record. */
  readonly commandsSeen: number;
  /** Answers `retry` in a row. */
  readonly retries: number;
  /** Over what the claim says, where only the journal knows. */
  readonly startedAtMs?: number;
  readonly version?: string;
}

/**
 * Where an engine without durable workflows of its own keeps the journals.
 * `"lost"` means that `owner` no longer holds the run: nothing was written.
 */
export interface JournalStore {
  /** Writes down the order of what has happened since, where that is not done yet; then answers with entries `from` on. */
  load(id: RunId, owner: string, from: number): Promise<JournalSlice | "lost">;
  /**
   * Carries the answer out in one step: commands recorded and started, or the run settled, delayed or handed back.
   * `seen` is how many entries the answer knows. `"more"`: others have come since, and `owner` still holds the run.
   */
  commit(id: RunId, owner: string, seen: number, result: Exclude<TickResult, { do: "needJournal" }>): Promise<"done" | "more" | "lost">;
}

/**
 * Drives `advance` over a journal store: takes one claimed run as far as it goes.
 * Remembers how far each live run was fed, so that a tick reads only what is new.
 */
export function createDrive(
  runtime: WorkerRuntime,
  store: JournalStore,
  maxLiveRuns = 2_000,
): (run: WorkflowRun, owner: string) => Promise<TickResult | "lost"> {
  const positions = new Lru<RunId, number>(maxLiveRuns);

  return async (run, owner) => {
    const { id } = run;
    if ((run.lostTicks ?? 0) >= MAX_LOST_TICKS) {
      const message = `The last ${MAX_LOST_TICKS} workers that took workflow "${run.name}" further were lost; look for a crash or an endless loop in its function.`;
      const result: TickResult = { do: "settle", status: "failed", error: errorRecord("WorkerLostError", "WORKER_LOST", message) };
      await store.commit(id, owner, 0, result);
      return result;
    }
    for (let from = positions.get(id) ?? 0; ;) {
      const slice = await store.load(id, owner, from);
      if (slice === "lost") break;
      const result = await runtime.advance({ ...run, ...slice, from });
      if (result.do === "needJournal") {
        from = 0;
        continue;
      }
      const seen = from + slice.entries.length;
      const outcome = await store.commit(id, owner, seen, result);
      if (outcome === "lost") break;
      if (result.do !== "wait") {
        positions.delete(id);
        return result;
      }
      positions.set(id, seen);
      if (outcome === "done") return result;
      from = seen;
    }
    // Another worker may have taken the run further in a way that this one has not seen.
    positions.delete(id);
    runtime.evict(id);
    return "lost";
  };
}
