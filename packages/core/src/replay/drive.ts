import { errorRecord } from "../values/error-record.ts";
import { Lru } from "../values/lru.ts";
import type { JournalEntry, RunId, TickResult, WorkerRuntime, WorkflowRun } from "../port/port.ts";
import { signalsFirst } from "./signals-first.ts";

/** The run that a worker holds for a tick. A store may add what it needs: its claim, the owner. */
export interface DrivenRun extends WorkflowRun {
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
 * `"lost"` means that this worker no longer holds the run: nothing was written.
 */
export interface JournalStore<Run extends DrivenRun = DrivenRun> {
  /** Answers with entries `from` on, those that no committed tick has acted on included. */
  load(run: Run, from: number): Promise<JournalSlice | "lost">;
  /**
   * Carries the answer out in one step: commands recorded and started, or the run settled, delayed or released.
   * `seen` is how many entries the answer knows. `"more"`: others have come since, and this worker still holds the run; an answer that
   * ends the run is not carried out then when a signal is among them, and one that waits is.
   * @param reordered the entries that no earlier commit has acted on, in the order that this answer is based on, where that is not
   *   the one they were loaded in: from now on it counts
   */
  commit(run: Run, seen: number, result: Answer, reordered?: readonly JournalEntry[]): Promise<"done" | "more" | "lost">;
}

/** What a store carries out. */
export type Answer = Exclude<TickResult, { do: "needJournal" }>;

/** Whether an answer is not carried out over a signal that has come since: a run that was cancelled ends as it is. */
export function endsOverSignals(answer: Answer): boolean {
  return answer.do === "complete" || (answer.do === "settle" && answer.status === "failed");
}

/**
 * Drives `advance` over a journal store: takes one claimed run as far as it goes.
 * Remembers how far each live run was fed, so that a tick reads only what is new.
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
      // What ended over a signal is not live any more.
      from = result.do === "wait" ? seen : 0;
    }
    // Another worker may have taken the run further in a way that this one has not seen.
    positions.delete(id);
    runtime.evict(id);
    return "lost";
  };
}
