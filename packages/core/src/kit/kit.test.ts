import { setTimeout as pause } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { silentLogger } from "../values/log.ts";
import { Intervals } from "./intervals.ts";
import { Shutdown } from "./shutdown.ts";
import { Waiters } from "./waiters.ts";

test("an interval does not overtake itself, outlives what it throws, and ends with stop()", async () => {
  const warn = vi.fn();
  const intervals = new Intervals({ ...silentLogger, warn });
  let [under, most, times] = [0, 0, 0];
  intervals.every(1, "look", async () => {
    most = Math.max(most, ++under);
    await pause(5);
    under--;
    if (++times === 2) throw new Error("away");
  });
  await vi.waitFor(() => expect(times).toBeGreaterThan(3), 10_000);
  intervals.stop();
  await vi.waitFor(() => expect(under).toBe(0));
  const after = times;
  await pause(50);
  expect({ most, times }).toEqual({ most: 1, times: after });
  expect(warn).toHaveBeenCalledWith("Cannot look: Error: away");
});

test("a shutdown finishes once, aborts when the grace period is over, and a later call shortens it", async () => {
  const calls: string[] = [];
  let free = (): void => {};
  const idle = new Promise<void>((resolve) => (free = resolve));
  const shutdown: Shutdown = new Shutdown({
    abort: () => void calls.push(`abort, stopping ${shutdown.stopping}`),
    finish: () => (calls.push("finish"), idle),
  });
  expect(shutdown.stopping).toBe(false);
  const first = shutdown.stop(3_600_000);
  expect([shutdown.stopping, shutdown.aborting]).toEqual([true, false]);
  expect(shutdown.stop(0)).toBe(first);
  expect(shutdown.aborting).toBe(true);
  free();
  await first;
  expect(calls).toEqual(["abort, stopping true", "finish"]);
  const timers = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  await shutdown.stop(3_600_000);
  expect(process.getActiveResourcesInfo().filter((name) => name === "Timeout")).toHaveLength(timers);
});

test("waiters are told once, leave no listener, and end with their signal", async () => {
  const changes: boolean[] = [];
  const waiters = new Waiters<string>((waiting) => changes.push(waiting));
  const controller = new AbortController();
  const [one, two, gone] = [waiters.follow("a", undefined), waiters.follow("a", controller.signal), waiters.follow("b", controller.signal)];
  waiters.settle("a", "done");
  expect(await Promise.all([one, two])).toEqual(["done", "done"]);
  controller.abort(new Error("enough"));
  await expect(gone).rejects.toThrow("enough");
  await expect(waiters.follow("c", controller.signal)).rejects.toThrow("enough");
  expect(waiters.size).toBe(0);
  const closed = waiters.follow("d", undefined);
  waiters.rejectAll(new Error("closed"));
  await expect(closed).rejects.toThrow("closed");
  expect(changes).toEqual([true, false, true, false]);
});
