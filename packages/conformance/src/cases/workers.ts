import assert from "node:assert/strict";
import { BackendUnavailableError, defineTask, silentLogger, type TaskBackend } from "@task-backend/core";
import { block, patient, record } from "../fixtures.ts";
import { mapInLanes } from "@task-backend/core/adapter";
import { casesOf } from "../suite.ts";

const rule10 = casesOf(10);
const rule11 = casesOf(11);
const rule12 = casesOf(12);
const rule13 = casesOf(13);
const rule14 = casesOf(14);

const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

/** The highest priority, if the engine has priorities, so that a run is not left waiting for its priority. */
function urgent({ capabilities }: TaskBackend): { priority?: "urgent" } {
  return capabilities.features.priority === "unsupported" ? {} : { priority: "urgent" };
}

export const workerCases = [
  rule10("a worker for a and b never touches c", async (t) => {
    const [a, b, c] = ["a", "b", "c"].map((letter) => `${t.queue}-${letter}`) as [string, string, string];
    const producer = await t.backend();
    const untouched = await producer.submit(echo, "c", { queue: c, ...urgent(producer) });
    const { backend } = await t.serve([echo], { queues: [a, b] });
    for (const queue of [a, b, a, b]) await (await backend.submit(echo, queue, { queue })).output({ timeout: "10s" });
    const result = await untouched.result();
    assert.equal(result.status, "pending");
    assert.equal(result.attempts, 0);
    await untouched.cancel();
  }),
  rule10(
    "what waits on a queue that nobody serves holds up no other queue",
    async (t) => {
      const isolated = defineTask({ name: "isolated", handler: async (n: number) => n });
      const producer = await t.backend();
      // If the engine skips only a limited number of such runs, no more than that are submitted.
      const length = producer.capabilities.features.queueIsolation === "approximate" ? 100 : 400;
      const options = { queue: `${t.queue}-idle` };
      const idle = await producer.submitMany(Array.from({ length }, (_, n) => ({ task: isolated, input: n, options })));
      const { backend } = await t.serve([isolated]);
      assert.equal(await (await backend.submit(isolated, -1, { queue: t.queue })).output({ timeout: "15s" }), -1);
      assert.equal((await idle[0]?.result())?.status, "pending");
      // The cancellations are made some at a time: on few connections, many in line would time out.
      await mapInLanes(idle, 20, (run) => run.cancel());
    },
    { shows: ["queueIsolation"] },
  ),

  rule11(
    "a run that this worker does not know waits uncharged for one that does, and is logged",
    async (t) => {
      const warnings: string[] = [];
      const log = { ...silentLogger, warn: (message: string) => void warnings.push(message) };
      const { backend } = await t.serve([echo], {}, {}, log);
      const known = defineTask({ name: "known_elsewhere", handler: async (n: number) => n + 1 });
      const run = await (await t.backend()).submit(known, 1, { queue: t.queue, ...urgent(backend) });
      await (await backend.submit(echo, 1, { queue: t.queue })).output({ timeout: "10s" });
      await t.until("a warning that names the task", () => warnings.some((warning) => warning.includes("known_elsewhere")));
      // A worker that must claim a run to learn its name holds it for a moment.
      await t.until("the run to wait uncharged", async () => (await run.result()).attempts === 0);
      await t.serve([known]);
      assert.equal(await run.output({ timeout: "15s" }), 2);
      assert.equal((await run.result()).attempts, 1);
    },
    { needs: ["unknownName"] },
  ),

  rule12("a stopping worker finishes what runs within its grace period and claims no more", async (t) => {
    let finish = (): void => {};
    let started = false;
    const slow = defineTask({
      name: "finishing",
      handler: async (_: null, context) => {
        started = true;
        await new Promise<void>((resolve) => (finish = resolve));
        return context.signal.aborted ? "aborted" : "finished";
      },
    });
    const { backend, worker } = await t.serve([slow, echo], { concurrency: 1, grace: "10s" });
    const running = await backend.submit(slow, null, { queue: t.queue });
    await t.until("the attempt to start", () => started);
    const waiting = await backend.submit(echo, 1, { queue: t.queue });
    const stopped = worker.stop();
    setTimeout(() => finish(), 100);
    await stopped;
    // No worker is left that could run it again; the end may become visible a moment after the engine accepted it.
    assert.equal(await running.output({ timeout: "15s" }), "finished");
    assert.equal((await waiting.result()).status, "pending");
    await waiting.cancel();
  }),
  rule12(
    "what does not finish within the grace period is aborted and goes back uncharged",
    async (t) => {
      const first = await t.spawnWorker(["--grace", "300ms"]);
      const backend = await t.backend();
      const run = await backend.submit(block, { file: t.effects, line: "x", waitMs: 60_000 }, { queue: t.queue });
      await t.until("the attempt to start", () => t.lines().length === 1);
      first.kill("SIGTERM");
      assert.equal(await first.exited, 0, first.output());
      const result = await run.result();
      assert.equal(result.status, "pending");
      assert.equal(result.attempts, 0);
      assert.match(t.lines()[1] as string, /^x AttemptInterruptedError 1/);
      await t.spawnWorker();
      await t.until("the second worker to take it", () => t.lines().length === 3);
      assert.match(t.lines()[2] as string, /^x start 1 /);
      await run.cancel();
    },
    { needs: ["release"], timeoutMs: 30_000 },
  ),
  rule12(
    "a second signal stops at once",
    async (t) => {
      const worker = await t.spawnWorker(["--grace", "60s"]);
      const backend = await t.backend();
      const run = await backend.submit(block, { file: t.effects, line: "x", waitMs: 60_000 }, { queue: t.queue });
      await t.until("the attempt to start", () => t.lines().length === 1);
      worker.kill("SIGTERM");
      await t.until("the worker to say that it stops", () => worker.output().includes("stopping"));
      worker.kill("SIGINT");
      assert.equal(await worker.exited, 0, worker.output());
      await run.cancel();
    },
    { timeoutMs: 30_000 },
  ),

  rule13(
    "the runs of a killed worker are run again by another",
    async (t) => {
      const first = await t.spawnWorker();
      const backend = await t.backend();
      const run = await backend.submit(record, { file: t.effects, line: "x", waitMs: 2_000 }, { queue: t.queue });
      await t.until("the attempt to start", () => t.lines().length === 1);
      first.kill("SIGKILL");
      await t.spawnWorker();
      assert.equal(await run.output({ timeout: backend.capabilities.limits.recoveryMs + 10_000 }), "x");
      assert.equal((await run.result()).attempts, 2);
      assert.deepEqual(
        t.lines().map((line) => line.split(" ")[1]),
        ["1", "2"],
      );
    },
    { timeoutMs: 60_000 },
  ),
  rule13(
    "a worker frozen past its lease can never settle what another has taken over",
    async (t) => {
      const first = await t.spawnWorker();
      const backend = await t.backend();
      const run = await backend.submit(block, { file: t.effects, line: "x", waitMs: 2_000 }, { queue: t.queue });
      await t.until("the attempt to start", () => t.lines().length === 1);
      first.kill("SIGSTOP");
      const second = await t.spawnWorker();
      const output = await run.output({ timeout: backend.capabilities.limits.recoveryMs + 10_000 });
      assert.equal(output, `x ${second.pid}`);
      first.kill("SIGCONT");
      // When it is continued, the first worker ends its attempt in one way or another, and goes on with other runs.
      await t.until("the frozen attempt to end", () => t.lines().some((line) => line.endsWith(` ${first.pid}`) && !line.includes("start")));
      second.kill("SIGTERM");
      await second.exited;
      const next = await backend.submit(record, { file: t.effects, line: "next" }, { queue: t.queue });
      assert.equal(await next.output({ timeout: backend.capabilities.limits.recoveryMs + 10_000 }), "next");
      const result = await run.result();
      assert.equal(result.status, "completed");
      assert.equal(result.output, `x ${second.pid}`);
      // The engine may have given the frozen worker other starts: those that the worker never saw are not charged.
      assert.equal(result.attempts, 2);
    },
    { timeoutMs: 60_000 },
  ),

  rule13(
    "a worker frozen in the middle of a workflow and continued: another goes on, and the stale one writes nothing",
    async (t) => {
      const first = await t.spawnWorker();
      const backend = await t.backend();
      const run = await backend.submit(patient, { file: t.effects, queue: t.queue, ms: 2_500 }, { queue: t.queue });
      await t.until("the long step to start", () => t.lines().some((line) => line.startsWith("long start")));
      // The worker is frozen while nothing is being written: an engine in the same process would be frozen with its locks.
      await new Promise((resolve) => setTimeout(resolve, 300));
      first.kill("SIGSTOP");
      const second = await t.spawnWorker();
      assert.equal(await run.output({ timeout: 4 * backend.capabilities.limits.recoveryMs + 15_000 }), "last");
      first.kill("SIGCONT");
      await t.until("the frozen step to end", () =>
        t.lines().some((line) => line.endsWith(` ${first.pid}`) && !line.includes("start") && line.startsWith("long")),
      );
      second.kill("SIGTERM");
      await second.exited;
      const next = await backend.submit(record, { file: t.effects, line: "next" }, { queue: t.queue });
      assert.equal(await next.output({ timeout: backend.capabilities.limits.recoveryMs + 10_000 }), "next");
      assert.equal(await run.output(), "last");
      for (const step of ["before", "last"])
        assert.equal(t.lines().filter((line) => line.startsWith(`${step} `)).length, 1, `${step} ran again`);
    },
    { needs: ["workflows"], timeoutMs: 120_000 },
  ),

  rule14(
    "calls to an unreachable engine reject within the time configured, and workers go on afterwards",
    async (t) => {
      const { outage, backend } = await t.outage({ callTimeout: "4s" });
      backend.register(echo);
      await backend.startWorker({ queues: [t.queue] });
      const before = await backend.submit(echo, "before", { queue: t.queue });
      assert.equal(await before.output({ timeout: "10s" }), "before");
      await outage.begin();
      const startedAt = Date.now();
      await assert.rejects(backend.submit(echo, "during", { queue: t.queue }), BackendUnavailableError);
      await assert.rejects(backend.cancel(before.id), BackendUnavailableError);
      assert.ok(Date.now() - startedAt < 10_000, "took too long to reject");
      await outage.end();
      await t.until("the engine to take runs again", () =>
        backend.submit(echo, "probe", { queue: t.queue }).then(
          () => true,
          () => false,
        ),
      );
      assert.equal(await (await backend.submit(echo, "after", { queue: t.queue })).output({ timeout: "15s" }), "after");
    },
    { timeoutMs: 40_000 },
  ),
];
