import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend, silentLogger } from "@task-backend/core";
import { sqlite } from "@task-backend/sqlite";
import { expect, onTestFinished, test } from "vitest";
import { audit, type Submitted, type Violations } from "../faults/audit.ts";
import { planFaults } from "../faults/plan.ts";
import { endsBadly, faultyChain, faultyStep, faultyTask, isCancelled, taskOutput, type Effect } from "../faults/tasks.ts";

/*
 * The auditor of the fault suite finds each kind of violation, and none in a correct history.
 */

test("a plan follows from its seed", () => {
  const plan = (seed: number) => planFaults(seed, 60_000, 3, true, 4_000);
  expect(plan(7)).toEqual(plan(7));
  expect(plan(7)).not.toEqual(plan(8));
  expect(plan(7).length).toBeGreaterThan(10);
  expect(new Set(planFaults(7, 600_000, 3, false, 4_000).map(({ kind }) => kind))).toEqual(new Set(["kill", "freeze", "clock", "restart"]));
});

test("the auditor finds nothing wrong with what went well, and each thing that did not", async () => {
  const folder = mkdtempSync(join(tmpdir(), "task-backend-audit-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "effects");
  writeFileSync(file, "");
  const backend = await createBackend(sqlite({ file: ":memory:" }), { log: silentLogger });
  onTestFinished(() => backend.close());
  backend.register(faultyTask, faultyStep, faultyChain);
  await backend.startWorker();
  // The numbers of a task and a chain that neither fail nor are cancelled.
  const [a = 0, b = 0] = Array.from({ length: 100 }, (_, n) => n).filter((n) => !endsBadly(n) && !isCancelled(n));
  const task = await backend.submit(faultyTask, { n: a, file });
  const chain = await backend.submit(faultyChain, { n: b, file });
  for (const word of ["one", "two"]) await chain.signal("word", word);
  const good: Submitted[] = [
    { n: a, type: "task", id: task.id, told: { output: await task.output() } },
    { n: b, type: "chain", id: chain.id, told: { output: await chain.output({ timeout: "15s" }) } },
  ];
  const counts = async (submitted: readonly Submitted[]): Promise<Record<keyof Violations, number>> => {
    const found = Object.entries(await audit(backend, submitted, file)).map(([name, list]: [string, string[]]) => [name, list.length]);
    return Object.fromEntries(found) as Record<keyof Violations, number>;
  };
  const none = { lost: 0, settledTwice: 0, stepsRunAgain: 0, wrongResults: 0, neverSettled: 0, waitsMissed: 0 };
  expect(await counts(good)).toEqual(none);

  const unserved = await backend.submit(faultyTask, { n: a, file }, { queue: "nobody" });
  const [fine] = good as [Submitted];
  expect(await counts([{ ...fine, id: "no-such-run" }])).toEqual({ ...none, lost: 1 });
  expect(await counts([{ ...fine, id: unserved.id }])).toEqual({ ...none, neverSettled: 1 });
  expect(await counts([{ ...fine, n: a + 1_000_000, type: "chain" }])).toEqual({ ...none, wrongResults: 1 });
  expect(await counts([{ n: a, type: "task", id: task.id }])).toEqual({ ...none, waitsMissed: 1 });
  expect(await counts([{ ...fine, told: { output: taskOutput(a) + 1 } }])).toEqual({ ...none, settledTwice: 1 });

  const leave = (...effects: Effect[]): void => writeFileSync(file, effects.map((effect) => `${JSON.stringify(effect)}\n`).join(""));
  leave({ type: "task", n: 1, run: "x" }, { type: "task", n: 1, run: "y" });
  expect(await counts([])).toEqual({ ...none, settledTwice: 1 });
  leave({ type: "step", n: 1, run: "w", place: 0 }, { type: "step", n: 1, run: "w", place: 1 }, { type: "step", n: 1, run: "w", place: 0 });
  expect(await counts([])).toEqual({ ...none, stepsRunAgain: 1 });
});
