import assert from "node:assert/strict";
import { defineTask, defineWorkflow, type AttemptEvent, type Logger } from "@task-backend/core";
import { z } from "zod";
import type { CaseContext, WorkerProcess } from "../context.ts";
import { block, explodes, forgetfulFlow, forgets, jobs, ODD_VALUES, record, WAYS_TO_FORGET } from "../fixtures.ts";
import { casesOf } from "../suite.ts";
import { increment, settled } from "./common.ts";

const rule30 = casesOf(30);

/** Both ways to run a worker: under the command, and embedded in an application that has no listeners of its own. */
const HOSTS = [
  ["the command", (t: CaseContext) => t.spawnWorker()],
  ["an embedded worker", (t: CaseContext) => t.spawnEmbedded()],
] as const;

/** Checks that another run of the same process completes at its first attempt, whatever goes wrong in that process. */
async function innocent(t: CaseContext, worker: WorkerProcess, culprits: () => Promise<void>): Promise<void> {
  const backend = await t.backend();
  const run = await backend.submit(block, { file: t.effects, line: "innocent", waitMs: 3_000 }, { queue: t.queue });
  await t.until("the innocent run to start", () => t.lines().includes(`innocent start 1 ${worker.pid}`));
  await culprits();
  assert.equal(await run.output({ timeout: "60s" }), `innocent ${worker.pid}`);
  assert.equal((await run.result()).attempts, 1);
  const after = await backend.submit(record, { file: t.effects, line: "after" }, { queue: t.queue });
  assert.equal(await after.output({ timeout: "30s" }), "after");
  assert.ok(!worker.ended(), `the process has ended; it said: ${worker.output()}`);
}

const throwing: Logger = Object.fromEntries(
  ["debug", "info", "warn", "error"].map((level) => [
    level,
    () => {
      throw new Error("the log is full");
    },
  ]),
) as unknown as Logger;

const hooks: Readonly<Record<string, () => unknown>> = {
  throws: () => {
    throw new Error("metrics are down");
  },
  rejects: async () => Promise.reject(new Error("metrics are down")),
  "throws what cannot be printed": () => {
    throw ODD_VALUES["throwingGetters"]?.();
  },
};

const fails = defineTask({ name: "fails", retry: { attempts: 1 }, handler: async () => Promise.reject(new Error("as it should")) });
const adds = defineWorkflow({ name: "adds", handler: async (wf, queue: string) => wf.run(increment, 1, { queue }) });

export const blastRadiusCases = [
  ...Object.entries(hooks).map(([how, hook]) =>
    rule30(`an onAttempt that ${how} costs no outcome and no slot`, async (t) => {
      const onAttempt = hook as (event: AttemptEvent) => void;
      const { backend, worker } = await t.serve([increment, fails, adds], { concurrency: 1, onAttempt });
      const failed = await settled(await backend.submit(fails, null, { queue: t.queue }));
      assert.ok(failed.status === "failed");
      assert.equal(failed.error.message, "as it should");
      for (const n of [1, 2])
        assert.equal(await (await backend.submit(increment, n, { queue: t.queue })).output({ timeout: "15s" }), n + 1);
      if (backend.capabilities.features.workflows !== "unsupported")
        assert.equal(await (await backend.submit(adds, t.queue, { queue: t.queue })).output({ timeout: "15s" }), 2);
      await worker.stop({ grace: "1s" });
    }),
  ),
  rule30("a logger that throws costs nothing, whoever logs", async (t) => {
    const logs = defineTask({
      name: "logs",
      handler: async (_: null, context) => {
        for (const level of ["debug", "info", "warn", "error"] as const) context.log[level]("said");
        return "logged";
      },
    });
    const { backend, worker } = await t.serve([logs, fails], { concurrency: 1 }, {}, throwing);
    assert.equal((await settled(await backend.submit(fails, null, { queue: t.queue }))).status, "failed");
    assert.equal(await (await backend.submit(logs, null, { queue: t.queue })).output({ timeout: "15s" }), "logged");
    await worker.stop({ grace: "1s" });
  }),
  rule30("fields that JSON does not hold can be logged", async (t) => {
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    const fields = [{ n: 10n }, { cycle }, { error: new Error("inner") }, ...Object.values(ODD_VALUES).map((make) => ({ odd: make() }))];
    const logs = defineTask({
      name: "logs_odd_fields",
      retry: { attempts: 1 },
      handler: async (_: null, context) => {
        for (const one of fields) context.log.debug("odd fields", one);
        return "logged";
      },
    });
    const backend = await t.backend();
    await backend.register(logs).startWorker({ queues: [t.queue] });
    assert.equal(await (await backend.submit(logs, null, { queue: t.queue })).output({ timeout: "15s" }), "logged");
  }),

  rule30(
    "whatever a task throws settles its run, and other runs complete",
    async (t) => {
      const odd = defineTask({
        name: "throws_odd",
        retry: { attempts: 1 },
        handler: async (name: string) => {
          throw ODD_VALUES[name]?.();
        },
      });
      const { backend } = await t.serve([odd, increment], { concurrency: 2 });
      const names = Object.keys(ODD_VALUES);
      const runs = await backend.submitMany(names.map((input) => ({ task: odd, input, options: { queue: t.queue } })));
      assert.equal(await (await backend.submit(increment, 1, { queue: t.queue })).output({ timeout: "30s" }), 2);
      for (const [index, run] of runs.entries()) {
        const result = await settled(run);
        assert.ok(result.status === "failed", `${names[index]}: ${result.status}`);
        const { name, message, code } = result.error;
        for (const text of [name, message, code])
          assert.ok(typeof text === "string" && text !== "", `${names[index]}: ${JSON.stringify(result.error)}`);
      }
    },
    { timeoutMs: 60_000 },
  ),
  rule30(
    "whatever a workflow throws settles its run, and other runs complete",
    async (t) => {
      const odd = defineWorkflow({
        name: "flow_throws_odd",
        queue: t.queue,
        handler: async (wf, name: string) => {
          await wf.run(increment, 1, { queue: t.queue });
          throw ODD_VALUES[name]?.();
        },
      });
      const { backend } = await t.serve([odd, increment]);
      for (const name of ["undefined", "throwingGetters", "revokedProxy", "throwingProxy", "changedFailure", "aggregateOfItself"]) {
        const result = await settled(await backend.submit(odd, name));
        assert.ok(result.status === "failed", `${name}: ${result.status}`);
        assert.equal(typeof result.error.message, "string");
      }
      assert.equal(await (await backend.submit(increment, 1, { queue: t.queue })).output({ timeout: "15s" }), 2);
    },
    { needs: ["workflows"], timeoutMs: 60_000 },
  ),

  ...HOSTS.flatMap(([host, start]) => [
    rule30(
      `what tasks forget, promises and timers that throw, costs other runs of ${host} nothing, and is logged with its run`,
      async (t) => {
        const worker = await start(t);
        await innocent(t, worker, async () => {
          const backend = await t.backend();
          const ways = Object.keys(WAYS_TO_FORGET);
          const runs = await backend.submitMany(ways.map((way) => ({ task: forgets, input: { way }, options: { queue: t.queue } })));
          // A callback that throws while its handler runs costs that attempt, if the engine can retry.
          const exploding =
            backend.capabilities.features.backoff === "unsupported" ? undefined : await backend.submit(explodes, null, { queue: t.queue });
          for (const [index, run] of runs.entries()) assert.equal(await run.output({ timeout: "30s" }), ways[index]);
          if (exploding) assert.equal(await exploding.output({ timeout: "30s" }), 2);
          await t.until("the log to name a run that forgot something", () => runs.some((run) => worker.output().includes(run.id)));
          // The errors of forgotten callbacks come after their attempts.
          await new Promise((resolve) => setTimeout(resolve, 1_000));
        });
      },
      { timeoutMs: 90_000 },
    ),
    rule30(
      `a workflow whose promises reject late, as it fails and as it is cancelled, costs other runs of ${host} nothing`,
      async (t) => {
        const worker = await start(t);
        await innocent(t, worker, async () => {
          const backend = await t.backend();
          const input = { file: t.effects, queue: t.queue };
          const [failing, cancelled] = [
            await backend.submit(jobs, { ...input, fails: true }, { queue: t.queue }),
            await backend.submit(jobs, { ...input, fails: false }, { queue: t.queue }),
          ];
          await t.until("both steps to run", () => t.lines().filter((line) => line.startsWith("hangs")).length === 2, 30_000);
          await cancelled.cancel();
          assert.equal((await settled(cancelled)).status, "cancelled");
          assert.equal((await settled(failing)).status, "failed");
          for (const way of ["error", "revokedProxy"]) {
            const flow = await backend.submit(forgetfulFlow, { queue: t.queue, way }, { queue: t.queue });
            assert.equal(await flow.output({ timeout: "30s" }), way);
          }
        });
      },
      { needs: ["workflows"], timeoutMs: 90_000 },
    ),
  ]),

  rule30(
    "progress that an attempt left behind does not speak for a later one",
    async (t) => {
      let late = (_value: string): void => {};
      let finish = (): void => {};
      const task = defineTask({
        name: "late_progress",
        retry: { attempts: 2, backoff: { type: "fixed", delay: 10, jitter: false } },
        handler: async (_: null, context) => {
          if (context.attempt === 1) {
            late = (value) => context.progress(value);
            throw new Error("again");
          }
          context.progress("second");
          await new Promise<void>((resolve) => (finish = resolve));
        },
      });
      const { backend } = await t.serve([task]);
      const run = await backend.submit(task, null, { queue: t.queue });
      await t.until("the second attempt to tell", async () => (await run.result()).progress === "second");
      late("of the first attempt");
      await new Promise((resolve) => setTimeout(resolve, 800));
      assert.equal((await run.result()).progress, "second");
      finish();
      await run.output({ timeout: "15s" });
      assert.equal((await run.result()).progress, "second");
    },
    { needs: ["progress", "backoff"] },
  ),
  rule30("input that a handler's own submit refuses is its own error, and is tried again", async (t) => {
    const strict = defineTask({ name: "strict", queue: `${t.queue}-nobody`, input: z.object({ n: z.number() }), handler: async () => 1 });
    let starts = 0;
    const producer = await t.backend();
    const outer = defineTask({
      name: "submits_badly",
      retry: { attempts: 2, backoff: { type: "fixed", delay: 10, jitter: false } },
      handler: async () => {
        starts++;
        await producer.submit(strict, { n: "no number" } as never);
      },
    });
    const { backend } = await t.serve([outer]);
    const result = await settled(await backend.submit(outer, null, { queue: t.queue }));
    assert.ok(result.status === "failed");
    assert.deepEqual([starts, result.attempts, result.error.code], [2, 2, "INVALID_INPUT"]);
  }),
];
