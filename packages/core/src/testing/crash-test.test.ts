import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { taskRef } from "../define/task.ts";
import { crashTest } from "./crash-test.ts";
import { CrashTestError } from "./crash-test-error.ts";
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
      // In a replay after a crash, both times are the same.
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

test("two at once have a clock each, other code has the real one, and Date is Node's own afterwards", async () => {
  const before = Date;
  const seen: number[] = [];
  const sleepy = (name: string) =>
    defineWorkflow({
      name,
      handler: async (wf) => {
        for (let i = 0; i < 5; i++) await wf.sleep("1m");
        // Reading the clock without deciding by it is no mistake.
        seen.push(Date.now(), new Date().getTime(), Date.parse(Date()));
      },
    });
  let outside = 0;
  const watch = setInterval(() => (outside = Math.max(outside, Date.now(), new Date().getTime())), 1);
  await Promise.all([crashTest(sleepy("a"), null, { tasks: {}, seeds: 3 }), crashTest(sleepy("b"), null, { tasks: {}, seeds: 9 })]);
  clearInterval(watch);
  expect(Date).toBe(before);
  expect(outside).toBeLessThan(Date.UTC(2030, 0, 1));
  expect(seen.length).toBeGreaterThan(0);
  expect(seen.every((ms) => ms >= Date.UTC(2030, 0, 1))).toBe(true);
  await expect(crashTest(defineWorkflow({ name: "bad", handler: () => new Promise(() => {}) }), null, { tasks })).rejects.toThrow();
  expect(Date).toBe(before);
});

test("a workflow may change what it was given: each replay has its own copy", async () => {
  const input = [1, 2, 3];
  const shifts = defineWorkflow({
    name: "shifts",
    handler: async (wf, todo: number[]) => {
      const outputs = await wf.run(taskRef<null, number[]>({ name: "list" }), null);
      outputs.push((await wf.waitForSignal<number[]>("more")).pop() as number);
      while (todo.length > 0) outputs.push(await wf.run(taskRef<number | undefined, number>({ name: "same" }), todo.shift()));
      return outputs;
    },
  });
  const list = [0];
  const fakes = { list: () => list, same: (n: number) => n };
  const report = await crashTest(shifts, input, { tasks: fakes, seeds: 5, signals: [{ name: "more", payload: [9] }] });
  expect(report.results).toEqual(["[0,9,1,2,3]"]);
  expect([input, list]).toEqual([[1, 2, 3], [0]]);
});

test("a workflow that gives wf.now() and waits with timers passes: no time of its record is lost in a crash", async () => {
  const timed = defineWorkflow({
    name: "timed",
    handler: async (wf) => {
      await Promise.all([wf.sleep("90m"), wf.sleep("1h").then(() => wf.sleep("29m"))]);
      return wf.now();
    },
  });
  expect((await crashTest(timed, null, { tasks, seeds: 10 })).results.length).toBeGreaterThan(0);
});

test("a variable that outlives the crash is caught, also where the result is the same", async () => {
  let cache: string | undefined;
  const cached = defineWorkflow({
    name: "cached",
    handler: async (wf) => {
      cache ??= await wf.run(step, "a");
      return wf.run(step, cache);
    },
  });
  await expect(crashTest(cached, null, { tasks })).rejects.toThrow(
    /Seed 1, crash before tick 1 of 3: .*made call 0, wf\.run\(step\) with input #\S+, which without the crash was wf\.run\(step\) .*outlives the function/s,
  );
});

test("a missing fake is told, also when the workflow catches the failure of the step", async () => {
  const fallback = defineWorkflow({ name: "fallback", handler: (wf) => wf.run(step, "a").catch(() => "fallback") });
  await expect(crashTest(fallback, null, { tasks: {} })).rejects.toThrow(/"step", which has no fake/);
});

test("a long workflow is crashed at some of its points, each seed at others, and the report says so", async () => {
  const long = defineWorkflow({
    name: "long",
    handler: async (wf) => {
      for (let i = 0; i < 30; i++) await wf.run(step, String(i));
    },
  });
  const report = await crashTest(long, null, { tasks, seeds: 4, crashPoints: 10 });
  expect(report).toMatchObject({ seeds: 4, crashPoints: 4 * 31 });
  expect(report.crashes).toBeGreaterThan(4 * 6);
  expect(report.crashes).toBeLessThanOrEqual(4 * 10);
  expect(await crashTest(long, null, { tasks, seeds: 2 })).toMatchObject({ crashes: 2 * 31, crashPoints: 2 * 31 });
  await expect(crashTest(long, null, { tasks, crashPoints: 0 })).rejects.toThrow(/give a number from 1/);
});

test("a rejection that the workflow handles late does not end the process", () => {
  const program = `
    import { defineWorkflow, taskRef } from "@task-backend/core";
    import { crashTest } from "@task-backend/core/testing";
    const late = defineWorkflow({
      name: "late",
      handler: async (wf) => {
        const job = wf.run(taskRef({ name: "step" }), 1).then(() => { throw new Error("late"); });
        await wf.sleep("1h");
        await job.catch(() => {});
        return "ok";
      },
    });
    const { results } = await crashTest(late, null, { tasks: { step: () => 1 }, seeds: 5 });
    console.log(results.join());`;
  const { stdout, status } = spawnSync(process.execPath, ["--input-type=module", "--eval", program], { encoding: "utf8" });
  expect([stdout.trim(), status]).toEqual(['"ok"', 0]);
});
