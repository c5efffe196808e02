import { errorRecord } from "../values/error-record.ts";
import { Lru } from "../values/lru.ts";
import type { JournalEntry, RunId, TickResult, WorkerRuntime, WorkflowRun } from "../port/port.ts";
import { signalsFirst } from "./signals-first.ts";

/** The run that a worker holds for a tick. A store may add its own properties: its claim, the owner. */
export interface DrivenRun extends WorkflowRun {
  /** The number of consecutive ticks that ended with the loss of their worker. */
  readonly lostTicks?: number;
}

/** A workflow function that kills its worker each time must not be retried for ever. */
const MAX_LOST_TICKS = 10;

/** The journal from one entry on. */
export interface JournalSlice {
  readonly entries: readonly JournalEntry[];
  /** The number of entries that the last committed tick had been given. */
  readonly seen: number;
  /** The number of recorded commands. */
  readonly commandsSeen: number;
  /** The number of consecutive `retry` answers. */
  readonly retries: number;
  /** Replaces the claim's value when only the journal knows it. */
  readonly startedAtMs?: number;
  readonly version?: string;
}

/**
 * The journals of an engine that has no durable workflows of its own.
 * `"lost"` means that this worker no longer holds the run: nothing was written.
 */
export interface JournalStore<Run extends DrivenRun = DrivenRun> {
  /** Loads the entries from number `from` on, including those that no committed tick has acted on. */
  load(run: Run, from: number): Promise<JournalSlice | "lost">;
  /**
   * Carries out the answer in one step: records and starts its commands, or settles, delays or releases the run.
   * `seen` is the number of entries that the answer takes into account. `"more"`: further entries have arrived, and this worker still
   * holds the run. If a signal is among them, an answer that ends the run is not carried out; an answer that waits always is.
   * @param reordered the entries that no earlier commit has acted on, in the order on which this answer is based, if that differs
   *   from the loaded order: the journal keeps this order from now on
   */
  commit(run: Run, seen: number, result: Answer, reordered?: readonly JournalEntry[]): Promise<"done" | "more" | "lost">;
}

/** An answer that a store carries out. */
export type Answer = Exclude<TickResult, { do: "needJournal" }>;

/** Whether a newer signal stops this answer from being carried out; it does not stop the end of a cancelled run. */
export function endsOverSignals(answer: Answer): boolean {
  return answer.do === "complete" || (answer.do === "settle" && answer.status === "failed");
}

/**
 * Drives `advance` over a journal store: executes ticks of one claimed run until it waits or settles.
 * It remembers how far each live run was fed, so that a tick reads only new entries.
 */
export function createDrive<Run extends DrivenRun>(
  runtime: WorkerRuntime,
  store: JournalStore<Run>,
  maxLiveRuns = 2_000,
): (run: Run) => Promise<TickResult | "lost"> {
  const positions = new Lru<RunId, number>(maxLiveRuns);

  return async (run) => {
    const { id } = run;
    if ((run.lostTicks ?? 0) >= MAX_LOST_TICKS) {
      const message = `The last ${MAX_LOST_TICKS} workers that took workflow "${run.name}" further were lost; look for a crash or an endless loop in its function.`;
      const result: Answer = { do: "settle", status: "failed", error: errorRecord("WorkerLostError", "WORKER_LOST", message) };
      await store.commit(run, Number.MAX_SAFE_INTEGER, result);
      return result;
    }
    let ordered = false;
    for (let from = positions.get(id) ?? 0; ;) {
      const slice = await store.load(run, from);
      if (slice === "lost") break;
      const entries = ordered && from === 0 ? signalsFirst(slice.entries, slice.seen) : slice.entries;
      const result = await runtime.advance({ ...run, ...slice, entries, from });
      if (result.do === "needJournal") {
        ordered ||= result.signalsFirst === true;
        from = 0;
        continue;
      }
      const seen = from + entries.length;
      const reordered = entries === slice.entries ? undefined : entries.slice(slice.seen);
      const outcome = await store.commit(run, seen, result, reordered);
      if (outcome === "lost") break;
      if (result.do === "wait") positions.set(id, seen);
      else positions.delete(id);
      if (outcome === "done") return result;
      ordered = false;
      // A run that ended without seeing a signal is no longer live.
      from = result.do === "wait" ? seen : 0;
    }
    // Another worker may have taken the run further since.
    positions.delete(id);
    runtime.evict(id);
    return "lost";
  };
}
