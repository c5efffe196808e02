import type { JournalEntry } from "../port/port.ts";

/**
 * A timer may be so late that a signal which came after its deadline overtakes it (rule 36): a worker acts on a deadline a moment
 * after it has passed. Beyond this time the deadline counts, whether a worker was up or not.
 */
const OVERTAKES_MS = 1_000;

/**
 * Orders each signal before the timers that fired no more than a moment before it came: for a function that was about to end
 * without seeing a signal. Entries that a committed tick has acted on keep their places.
 * @param acted the number of those entries
 * @returns the same array when nothing changes
 */
export function signalsFirst(entries: readonly JournalEntry[], acted: number): readonly JournalEntry[] {
  const result = [...entries];
  let changed = false;
  for (let index = acted; index < result.length; index++) {
    const entry = result[index] as JournalEntry;
    if (entry.type !== "signal") continue;
    const to = result.findIndex((other, at) => at >= acted && at < index && overtakes(entry, other));
    if (to < 0) continue;
    result.splice(index, 1);
    result.splice(to, 0, entry);
    changed = true;
  }
  return changed ? result : entries;
}

function overtakes(signal: JournalEntry & { type: "signal" }, other: JournalEntry): boolean {
  return other.type === "fired" && signal.atMs - (other.dueMs ?? other.atMs) <= OVERTAKES_MS;
}
