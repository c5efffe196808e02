import type { JournalEntry } from "@task-backend/core/adapter";
import { expect, test } from "vitest";
import { inOrder, isUnclear, toldOf } from "./order.ts";

const signal = (name: string, atMs: number): JournalEntry & { type: "signal" } => ({ type: "signal", name, payload: null, atMs });
const fired = (n: number, dueMs: number, atMs = dueMs): JournalEntry & { type: "fired" } => ({ type: "fired", n, atMs, dueMs });
const settled = (n: number, atMs: number): JournalEntry & { type: "settled" } => ({
  type: "settled",
  n,
  atMs,
  outcome: { status: "completed", output: null },
});

test("only what was told of after a deadline that stands behind it is unclear", () => {
  expect(isUnclear([signal("a", 100)], [])).toBe(false);
  expect(isUnclear([signal("a", 100)], [[1, 200]])).toBe(false);
  expect(isUnclear([signal("a", 300)], [[1, 200]])).toBe(true);
  expect(isUnclear([settled(2, 300), fired(1, 200, 300)], [])).toBe(true);
  expect(isUnclear([fired(1, 200, 300), settled(2, 300)], [])).toBe(true);
  expect(isUnclear([fired(1, 200)], [[1, 200]])).toBe(false);
});

test("a deadline comes before what arrived after it, whether its timer has fired or not; what arrived before keeps its place", () => {
  const [early, late] = [signal("early", 500), signal("late", 500)];
  const arrived = new Map<JournalEntry, number>([
    [early, 90],
    [late, 300],
  ]);
  const inTime = [signal("early", 90), fired(1, 100, 450), fired(2, 200), signal("late", 300)];
  expect(inOrder([early, late, fired(1, 100, 450)], [[2, 200]], (entry) => arrived.get(entry))).toEqual(inTime);
  // Two timers that are both due fire in the order of their deadlines.
  expect(
    inOrder(
      [late],
      [
        [4, 250],
        [3, 150],
      ],
      () => 300,
    ).map((entry) => "n" in entry && entry.n),
  ).toEqual([3, 4, false]);
});

test("a step that ended before a deadline comes before it, though Temporal hands the timer over first", () => {
  const entries = [fired(1, 200, 500), fired(2, 400, 500), settled(3, 500)];
  expect(inOrder(entries, [], () => 300)).toEqual([fired(1, 200, 500), settled(3, 300), fired(2, 400, 500)]);
  expect(inOrder(entries, [], () => 450)).toEqual([fired(1, 200, 500), fired(2, 400, 500), settled(3, 450)]);
  expect(inOrder(entries, [], () => 100)).toEqual([settled(3, 100), fired(1, 200, 500), fired(2, 400, 500)]);
});

test("what has no known time keeps its place, and nothing fires twice", () => {
  const command: JournalEntry = { type: "command", n: 5, key: "sleep:1" };
  const entries = [settled(1, 500), command, fired(2, 100, 450), fired(3, 400, 450)];
  expect(inOrder(entries, [[3, 400]], () => undefined)).toEqual(entries);
  expect(inOrder(entries, [[3, 400]], () => 200)).toEqual([fired(2, 100, 450), settled(1, 200), command, fired(3, 400, 450)]);
});

test("the order is told by the places that the entries were sent in, and in full where one was added", () => {
  const sent: JournalEntry[] = [signal("a", 300), { type: "command", n: 0, key: "k" }];
  expect(toldOf([fired(1, 200), ...sent], (entry) => (sent.includes(entry) ? sent.indexOf(entry) : undefined))).toEqual([
    fired(1, 200),
    [0, 300],
    [1],
  ]);
});
