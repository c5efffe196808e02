import assert from "node:assert/strict";
import { defineTask, PRIORITIES, type Priority } from "@task-backend/core";
import { casesOf } from "../suite.ts";

const rule7 = casesOf(7);
const rule8 = casesOf(8);
const rule9 = casesOf(9);

const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

export const schedulingCases = [
  rule7(
    "higher priority first, and within one level in order of submission",
    async (t) => {
      const { features, limits } = await t.capabilities();
      const order: string[] = [];
      const task = defineTask({ name: "ordered", handler: async (label: string) => void order.push(label) });
      const producer = await t.backend();
      const labels: string[] = [];
      for (const index of [0, 1, 2]) {
        for (const priority of PRIORITIES) {
          labels.push(`${priority}-${index}`);
          await producer.submit(task, `${priority}-${index}`, { queue: t.queue, priority });
        }
      }
      const { backend } = await t.serve([task], { concurrency: 1 });
      const last = await backend.submit(task, "last", { queue: t.queue, priority: "low" });
      await last.output({ timeout: "25s" });
      await t.until("all of them to run", () => order.length === labels.length + 1);
      const level = (label: string): number =>
        Math.floor((PRIORITIES.indexOf(label.split("-")[0] as Priority) * limits.priorityLevels) / PRIORITIES.length);
      const expected = [...labels].sort((a, b) => level(b) - level(a) || labels.indexOf(a) - labels.indexOf(b));
      const place = (priority: Priority): number => [0, 1, 2].reduce((sum, index) => sum + order.indexOf(`${priority}-${index}`), 0);
      if (features.priority === "approximate") assert.ok(place("urgent") < place("low"), `the order was ${order.join(", ")}`);
      else assert.deepEqual(order, [...expected, "last"]);
    },
    { needs: ["priority"] },
  ),

  rule8(
    "a delayed run is scheduled, never early, and keeps its id",
    async (t) => {
      const at = new Map<string, number>();
      const task = defineTask({ name: "timed", handler: async (_: null, context) => void at.set(context.id, Date.now()) });
      const { backend } = await t.serve([task]);
      const before = Date.now();
      const runAt = new Date(before + 3_000);
      const [delayed, dated] = [
        await backend.submit(task, null, { queue: t.queue, delay: "1s" }),
        await backend.submit(task, null, { queue: t.queue, runAt }),
      ];
      if (backend.capabilities.features.waitingStatuses !== "unsupported") assert.equal((await dated.result()).status, "scheduled");
      await Promise.all([delayed.output({ timeout: "15s" }), dated.output({ timeout: "15s" })]);
      assert.ok((at.get(delayed.id) ?? 0) >= before + 1_000, "the delayed one ran early, or under another id");
      assert.ok((at.get(dated.id) ?? 0) >= runAt.getTime(), "the dated one ran early, or under another id");
    },
    { needs: ["delay"], shows: ["waitingStatuses"] },
  ),

  rule9(
    "the same name, queue and key are one run, also when submitted at the same moment",
    async (t) => {
      const starts: unknown[] = [];
      const task = defineTask({ name: "once", handler: async (n: number) => starts.push(n) });
      const producers = await Promise.all([t.backend(), t.backend(), t.backend()]);
      const runs = await Promise.all(
        Array.from({ length: 30 }, (_, n) =>
          (producers[n % 3] as (typeof producers)[0]).submit(task, n, { queue: t.queue, idempotencyKey: "batch-7" }),
        ),
      );
      assert.equal(new Set(runs.map((run) => run.id)).size, 1);
      assert.equal(runs.filter((run) => !run.deduplicated).length, 1);
      const { backend } = await t.serve([task, echo]);
      await runs[0]?.output({ timeout: "15s" });
      const late = await backend.submit(task, 99, { queue: t.queue, idempotencyKey: "batch-7" });
      assert.equal(late.id, runs[0]?.id);
      assert.equal(late.deduplicated, true);
      await (await backend.submit(echo, 1, { queue: t.queue })).output({ timeout: "15s" });
      assert.equal(starts.length, 1);
    },
    { needs: ["idempotency"] },
  ),
  rule9(
    "a key holds for a run that is delayed",
    async (t) => {
      const starts: number[] = [];
      const task = defineTask({ name: "later_once", handler: async () => starts.push(Date.now()) });
      const { backend } = await t.serve([task]);
      const notBefore = Date.now() + 1_000;
      const submit = () => backend.submit(task, null, { queue: t.queue, idempotencyKey: "later", delay: "1s" });
      const [first, second] = [await submit(), await submit()];
      assert.equal(second.id, first.id);
      assert.equal(second.deduplicated, true);
      await second.output({ timeout: "15s" });
      assert.equal(starts.length, 1);
      assert.ok((starts[0] as number) >= notBefore, "it ran early");
    },
    { needs: ["idempotency", "delay", "idempotencyWithDelay"] },
  ),
  rule9(
    "another key, name or queue is another run",
    async (t) => {
      const backend = await t.backend();
      const other = defineTask({ name: "echo_other", handler: async () => 1 });
      const runs = await Promise.all([
        backend.submit(echo, 1, { queue: t.queue, idempotencyKey: "k" }),
        backend.submit(echo, 1, { queue: t.queue, idempotencyKey: "k2" }),
        backend.submit(other, null, { queue: t.queue, idempotencyKey: "k" }),
        backend.submit(echo, 1, { queue: `${t.queue}-2`, idempotencyKey: "k" }),
        backend.submit(echo, 1, { queue: t.queue }),
        backend.submit(echo, 1, { queue: t.queue }),
      ]);
      assert.equal(new Set(runs.map((run) => run.id)).size, 6);
      assert.ok(runs.every((run) => !run.deduplicated));
      await Promise.all(runs.map((run) => run.cancel()));
    },
    { needs: ["idempotency"] },
  ),
];
