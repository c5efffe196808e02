import type { JournalEntry } from "@task-backend/core/adapter";
import type { Timer, Told } from "./wire.ts";

/*
 * The order of the entries that no tick has acted on yet. Temporal delivers signals before timers, and timers before the ends of
 * steps, whatever came first, and its timers are up to a second late. A due timer goes before later entries (rule 36).
 */

type Fired = JournalEntry & { type: "fired" };
type Arrival = JournalEntry & { type: "signal" | "settled" };

/** The time at which an entry arrived, by the server's clock; undefined when it is unknown. */
export type ArrivedAt = (entry: Arrival) => number | undefined;

/** Whether an entry may be on the wrong side of a deadline. Its own time says when the worker was told, which may be late. */
export function isUnclear(entries: readonly JournalEntry[], timers: readonly Timer[]): boolean {
  const earliestDueMs = Math.min(...deadlines(entries, timers).map(({ dueMs }) => dueMs));
  return entries.some((entry) => isArrival(entry) && entry.atMs > earliestDueMs);
}

/** Orders timers between the entries that arrived before and after their deadlines; due timers that have not fired yet are added. */
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

/** The entries in the form of an answer. `origin` finds the position at which an entry was sent. */
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

/** The timers in the order of their deadlines. */
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
