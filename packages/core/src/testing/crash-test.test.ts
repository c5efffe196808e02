import { expect, test } from "vitest";
import { taskRef } from "../define/task.ts";
import { crashTest, CrashTestError } from "./crash-test.ts";
import { defineWorkflow } from "../define/workflow.ts";

const step = taskRef<string, string>({ name: "step" });
const tasks = { step: (label: string) => label.toUpperCase() };

test("a workflow that keeps the rules passes at every crash point, and says how many there were", async () => {
  const workflow = defineWorkflow({
    name: "sound",
    handler: async (wf, label: string) => {
      const first = await Promise.race([wf.run(step, label), wf.run(step, `${label}2`)]);
      await wf.sleep("1h");
      const approved = await wf.waitForSignal<string>("approved", { timeout: "10d" });
      return [first, approved, wf.random() < 2];
    },
  });
  const report = await crashTest(workflow, "a", { tasks, seeds: 30, signals: [{ name: "approved", payload: "yes" }] });
  expect(report.seeds).toBe(30);
  expect(report.crashes).toBeGreaterThan(100);
  // Either step may win the race, and the timeout may come before the signal.
  expect([...report.results].sort()).toEqual([
    '["A","yes",true]',
    '["A2","yes",true]',
    'failed: Signal "approved" did not come within 864000000 ms.',
  ]);
});

test("Date.now() deciding a branch is caught, with the seed and the remedy", async () => {
  const workflow = defineWorkflow({
    name: "impatient",
    handler: async (wf, label: string) => {
      const startedAt = Date.now();
      await wf.sleep("1h");
      // Replayed after a crash, both moments are the same one.
      if (Date.now() - startedAt < 3_600_000) return wf.run(step, `${label} again`);
      return wf.run(step, "second");
    },
  });
  await expect(crashTest(workflow, "a", { tasks })).rejects.toThrow(CrashTestError);
  await expect(crashTest(workflow, "a", { tasks })).rejects.toThrow(
    /Seed 1, crash before tick \d+ of \d+: .*Between wf calls use no clock/s,
  );
});

test("Math.random() deciding a branch is caught", async () => {
  const workflow = defineWorkflow({
    name: "dice",
    handler: async (wf) => wf.run(step, String(Math.random())),
  });
  await expect(crashTest(workflow, null, { tasks })).rejects.toThrow(CrashTestError);
});

test("a missing fake, a missing signal and a stalled workflow are told apart from a difference", async () => {
  const ask = defineWorkflow({ name: "ask", handler: async (wf) => wf.waitForSignal("answer") });
  await expect(crashTest(ask, null, { tasks })).rejects.toThrow(/waits for signal "answer"/);
  const other = defineWorkflow({ name: "other", handler: async (wf) => wf.run(taskRef({ name: "unknown" }), 1) });
  await expect(crashTest(other, null, { tasks })).rejects.toThrow(/"unknown", which has no fake/);
  const stuck = defineWorkflow({ name: "stuck", handler: async () => new Promise(() => {}) });
  await expect(crashTest(stuck, null, { tasks })).rejects.toThrow(/without any crash: .*not a wf call/);
});
