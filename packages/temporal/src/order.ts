import type { JournalEntry } from "@task-backend/core/adapter";
import type { Timer, Told } from "./wire.ts";

/*
 * The order of what no tick has acted on yet. Temporal hands signals over before timers, and timers before the ends of steps, whatever
 * came first, and its timers come up to a second late. A deadline that has passed goes before what came after it (rule 36).
 */

type Fired = JournalEntry & { type: "fired" };
type Arrival = JournalEntry & { type: "signal" | "settled" };

/** When something arrived, by the server's clock; undefined where it cannot be told. */
export type ArrivedAt = (entry: Arrival) => number | undefined;

/** Whether something may have come after a deadline, or before one that stands before it. Its own time is when the worker was told, no earlier. */
export function isUnclear(entries: readonly JournalEntry[], timers: readonly Timer[]): boolean {
  const earliestDueMs = Math.min(...deadlines(entries, timers).map(({ dueMs }) => dueMs));
  return entries.some((entry) => isArrival(entry) && entry.atMs > earliestDueMs);
}

/** With each deadline before what arrived after it, and after what arrived before it; one whose timer has not fired yet is added. */
export function inOrder(entries: readonly JournalEntry[], timers: readonly Timer[], arrivedAt: ArrivedAt): JournalEntry[] {
  const open = deadlines(entries, timers);
  const arrivals = entries.map((entry) => (isArrival(entry) ? arrivedAt(entry) : undefined));
  const result: JournalEntry[] = [];
  const place = (isDue: (one: Deadline) => boolean): void => {
    for (const one of open.filter(isDue)) {
      open.splice(open.indexOf(one), 1);
      result.push(one.entry);
    }
  };
  for (const [index, entry] of entries.entries()) {
    const atMs = arrivals[index];
    if (entry.type === "fired" && entry.dueMs !== undefined) {
      const { dueMs } = entry;
      const isEarly = arrivals.slice(index).some((laterMs) => laterMs !== undefined && laterMs <= dueMs);
      if (!isEarly) place((one) => one.entry === entry);
      continue;
    }
    if (atMs !== undefined) place(({ dueMs }) => dueMs < atMs);
    result.push(atMs === undefined ? entry : { ...(entry as Arrival), atMs });
  }
  place((one) => entries.includes(one.entry));
  return result;
}

/** What is sent back of entries that were sent in another order. `origin` finds the entry that one was made of. */
export function toldOf(entries: readonly JournalEntry[], origin: (entry: JournalEntry) => number | undefined): Told[] {
  return entries.map((entry) => {
    const index = origin(entry);
    if (index === undefined) return entry as Fired;
    return entry.type === "command" ? [index] : [index, entry.atMs];
  });
}

interface Deadline {
  readonly dueMs: number;
  readonly entry: Fired;
}

/** The first first. */
function deadlines(entries: readonly JournalEntry[], timers: readonly Timer[]): Deadline[] {
  const fired = entries.flatMap((entry) => (entry.type === "fired" && entry.dueMs !== undefined ? [{ dueMs: entry.dueMs, entry }] : []));
  const known = new Set(fired.map(({ entry }) => entry.n));
  const late = timers
    .filter(([n]) => !known.has(n))
    .map(([n, dueMs]): Deadline => ({ dueMs, entry: { type: "fired", n, atMs: dueMs, dueMs } }));
  return [...fired, ...late].sort((a, b) => a.dueMs - b.dueMs);
}

function isArrival(entry: JournalEntry): entry is Arrival {
  return entry.type === "signal" || entry.type === "settled";
}
