import assert from "node:assert/strict";
import { defineTask, NonRetryableError, RetryableError, TaskCancelledError, TaskTimedOutError } from "@task-backend/core";
import { block, die, failOnce, record } from "../fixtures.ts";
import { casesOf } from "../suite.ts";

const rule2 = casesOf(2);
const rule4 = casesOf(4);
const rule5 = casesOf(5);
const rule6 = casesOf(6);

const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

/** Waits until the signal is aborted, and returns its reason. */
function aborted(signal: AbortSignal): Promise<string> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve((signal.reason as Error).name);
    signal.addEventListener("abort", () => resolve((signal.reason as Error).name));
  });
}

export const attemptCases = [
  rule2(
    "500 runs by three workers each settle once, with their own output",
    async (t) => {
      const starts = new Map<number, number>();
      const task = defineTask({
        name: "counted",
        handler: async (n: number) => {
          starts.set(n, (starts.get(n) ?? 0) + 1);
          return n * 2;
        },
      });
      const { backend } = await t.serve([task], { concurrency: 20 });
      await t.serve([task], { concurrency: 20 });
      await t.serve([task], { concurrency: 20 });
      const numbers = Array.from({ length: 500 }, (_, n) => n);
      const runs = await backend.submitMany(numbers.map((n) => ({ task, input: n, options: { queue: t.queue } })));
      assert.deepEqual(
        await Promise.all(runs.map((run) => run.output({ timeout: "60s" }))),
        numbers.map((n) => n * 2),
      );
      assert.deepEqual(
        [...starts.values()].filter((count) => count !== 1),
        [],
      );
    },
    { timeoutMs: 90_000 },
  ),
  rule2(
    "no wait is missed: 300 runs in a row, each settled in another process while its output is asked for",
    async (t) => {
      await t.spawnWorker();
      const backend = await t.backend();
      for (let n = 0; n < 300; n++) {
        const run = await backend.submit(record, { file: t.effects, line: `${n}` }, { queue: t.queue });
        assert.equal(await run.output({ timeout: "15s" }), `${n}`);
      }
    },
    { timeoutMs: 90_000 },
  ),
  rule2(
    "a task that kills its worker uses up its attempts and fails as WORKER_LOST",
    async (t) => {
      const backend = await t.backend();
      const run = await backend.submit(die, { file: t.effects, line: "x" }, { queue: t.queue });
      const { recoveryMs } = backend.capabilities.limits;
      const settled = run.output({ timeout: 3 * recoveryMs + 10_000 }).then(
        () => true,
        () => true,
      );
      let done = false;
      void settled.then(() => (done = true));
      // This needs at most one worker more than attempts: the last one settles the run.
      for (let workers = 0; workers < 3 && !done; workers++) {
        const worker = await t.spawnWorker();
        await Promise.race([worker.exited, settled]);
      }
      await settled;
      const result = await run.result();
      assert.equal(result.status, "failed");
      assert.equal(result.error.code, "WORKER_LOST");
      assert.equal(result.attempts, 2);
      assert.deepEqual(t.lines(), ["x", "x"]);
    },
    { needs: ["lostStarts"], timeoutMs: 60_000 },
  ),

  rule4(
    "attempts come no earlier than the policy says, and the last error is the result's",
    async (t) => {
      const at: number[] = [];
      const task = defineTask({
        name: "failing",
        retry: { attempts: 3, backoff: { delay: 120, factor: 2, jitter: true } },
        handler: async (_: null, context) => {
          at.push(Date.now());
          throw new Error(`attempt ${context.attempt} of ${context.maxAttempts}`);
        },
      });
      const { backend } = await t.serve([task]);
      const run = await backend.submit(task, null, { queue: t.queue });
      await t.until("a retrying run to show its error", async () => {
        const result = await run.result();
        return result.status === "retrying" && result.error?.message.startsWith("attempt");
      });
      await run.output({ timeout: "15s" }).catch(() => {});
      const result = await run.result();
      assert.equal(result.status, "failed");
      assert.equal(result.error.message, "attempt 3 of 3");
      assert.equal(result.error.retryable, true);
      assert.equal(result.attempts, 3);
      assert.equal(at.length, 3);
      assert.ok((at[1] as number) - (at[0] as number) >= 119, "second attempt too early");
      assert.ok((at[2] as number) - (at[1] as number) >= 239, "third attempt too early");
    },
    { needs: ["backoff"] },
  ),
  rule4("a task that succeeds at its third attempt completes", async (t) => {
    const task = defineTask({
      name: "third_time",
      retry: { attempts: 5, backoff: { type: "fixed", delay: 5, jitter: false } },
      handler: async (_: null, context) => {
        if (context.attempt < 3) throw new Error("not yet");
        return context.attempt;
      },
    });
    const { backend } = await t.serve([task]);
    const run = await backend.submit(task, null, { queue: t.queue });
    assert.equal(await run.output({ timeout: "15s" }), 3);
    assert.equal((await run.result()).attempts, 3);
  }),
  rule4(
    "NonRetryableError stops at once; RetryableError sets the delay",
    async (t) => {
      const final = defineTask({
        name: "final",
        handler: async () => Promise.reject(new NonRetryableError("no use", { code: "E_NO", details: [1] })),
      });
      const at: number[] = [];
      const later = defineTask({
        name: "later",
        retry: { attempts: 2, backoff: { delay: "1h" } },
        handler: async () => {
          at.push(Date.now());
          if (at.length === 1) throw new RetryableError("busy", { retryAfter: 150 });
          return "done";
        },
      });
      const { backend } = await t.serve([final, later]);
      const [stopped, delayed] = [
        await backend.submit(final, null, { queue: t.queue }),
        await backend.submit(later, null, { queue: t.queue }),
      ];
      await stopped.output({ timeout: "10s" }).catch(() => {});
      const result = await stopped.result();
      assert.equal(result.status, "failed");
      assert.equal(result.attempts, 1);
      assert.deepEqual(
        { code: result.error.code, retryable: result.error.retryable, details: result.error.details },
        { code: "E_NO", retryable: false, details: [1] },
      );
      assert.equal(await delayed.output({ timeout: "10s" }), "done");
      assert.ok((at[1] as number) - (at[0] as number) >= 149, "earlier than retryAfter");
    },
    { needs: ["retryAfter"] },
  ),
  rule4(
    "a worker killed during the backoff changes nothing",
    async (t) => {
      const first = await t.spawnWorker();
      const backend = await t.backend();
      const run = await backend.submit(failOnce, { file: t.effects, line: "x" }, { queue: t.queue });
      await t.until("the first attempt to fail", async () => (await run.result()).status === "retrying");
      first.kill("SIGKILL");
      await first.exited;
      await t.spawnWorker();
      assert.equal(await run.output({ timeout: backend.capabilities.limits.recoveryMs + 10_000 }), 2);
      const [one, two] = t.lines().map((line) => Number(line.split(" ")[2]));
      assert.ok((two as number) - (one as number) >= 1_499, "second attempt too early");
      assert.equal(t.lines().length, 2);
    },
    { timeoutMs: 30_000 },
  ),

  rule5(
    "a timeout aborts the signal, counts as an attempt, and settles timed_out when they run out",
    async (t) => {
      const reasons: string[] = [];
      const task = defineTask({
        name: "slow",
        timeout: 600,
        retry: { attempts: 2, backoff: { delay: 1 } },
        handler: async (_: null, context) => {
          reasons.push(await aborted(context.signal));
          return "too late, and ignored";
        },
      });
      const { backend } = await t.serve([task]);
      const run = await backend.submit(task, null, { queue: t.queue });
      await assert.rejects(run.output({ timeout: "10s" }), TaskTimedOutError);
      const result = await run.result();
      assert.equal(result.status, "timed_out");
      assert.equal(result.error.code, "TIMEOUT");
      assert.equal(result.attempts, 2);
      assert.deepEqual(reasons, ["AttemptTimeoutError", "AttemptTimeoutError"]);
    },
    { needs: ["timeout"] },
  ),
  rule5(
    "a handler that ignores its signal is not waited for, and its outcome changes nothing",
    async (t) => {
      let release = (): void => {};
      const held = new Promise<void>((resolve) => (release = resolve));
      const task = defineTask({ name: "deaf", timeout: 50, retry: { attempts: 1 }, handler: async () => held });
      const { backend } = await t.serve([task, echo]);
      const run = await backend.submit(task, null, { queue: t.queue });
      await assert.rejects(run.output({ timeout: "10s" }), TaskTimedOutError);
      release();
      await (await backend.submit(echo, 1, { queue: t.queue })).output({ timeout: "10s" });
      assert.equal((await run.result()).status, "timed_out");
    },
    { needs: ["timeout"] },
  ),
  rule5(
    "the timeout is per attempt: a retry has all of it again",
    async (t) => {
      const task = defineTask({
        name: "second_is_quick",
        timeout: "1500ms",
        retry: { attempts: 2, backoff: { delay: 1 } },
        handler: async (_: null, context) =>
          context.attempt === 1 ? aborted(context.signal) : new Promise((resolve) => setTimeout(() => resolve("in time"), 200)),
      });
      const { backend } = await t.serve([task]);
      assert.equal(await (await backend.submit(task, null, { queue: t.queue })).output({ timeout: "10s" }), "in time");
    },
    { needs: ["timeout"] },
  ),

  rule6(
    "a waiting run never runs",
    async (t) => {
      const backend = await t.backend();
      let ran = 0;
      const task = defineTask({ name: "never", handler: async () => void ran++ });
      const [waiting, delayed] = [
        await backend.submit(task, null, { queue: t.queue }),
        await backend.submit(task, null, { queue: t.queue, delay: 100 }),
      ];
      // Several cancellations at the same moment count as one.
      await Promise.all([waiting, waiting, waiting, delayed].map((run) => run.cancel()));
      await assert.rejects(waiting.output({ timeout: "5s" }), TaskCancelledError);
      assert.equal((await delayed.result()).status, "cancelled");
      const { backend: serving } = await t.serve([task, echo]);
      await (await serving.submit(echo, 1, { queue: t.queue, delay: 200 })).output({ timeout: "10s" });
      assert.equal(ran, 0);
    },
    { needs: ["cancelWaiting"] },
  ),
  rule6(
    "a running one is aborted from another backend, and settles cancelled even if the handler returns",
    async (t) => {
      let started = false;
      const reasons: string[] = [];
      const task = defineTask({
        name: "cancelled",
        handler: async (_: null, context) => {
          started = true;
          reasons.push(await aborted(context.signal));
          return "returned all the same";
        },
      });
      await t.serve([task]);
      const other = await t.backend();
      const run = await other.submit(task, null, { queue: t.queue });
      await t.until("the attempt to start", () => started);
      await run.cancel();
      await run.cancel();
      await assert.rejects(run.output({ timeout: "10s" }), TaskCancelledError);
      const result = await run.result();
      assert.equal(result.status, "cancelled");
      assert.equal(result.error.code, "TASK_CANCELLED");
      await t.until("the handler to see the abort", () => reasons.length > 0);
      assert.deepEqual(reasons, ["TaskCancelledError"]);
    },
    { needs: ["cancelRunning"] },
  ),
  rule6(
    "a settled run is unchanged, and one that waits for a retry is cancelled at once",
    async (t) => {
      const failing = defineTask({
        name: "retries_later",
        retry: { attempts: 2, backoff: { delay: "1h" } },
        handler: async () => Promise.reject(new Error("first")),
      });
      const { backend } = await t.serve([echo, failing]);
      const done = await backend.submit(echo, "kept", { queue: t.queue });
      await done.output({ timeout: "10s" });
      await done.cancel();
      const result = await done.result();
      assert.equal(result.status, "completed");
      assert.equal(result.output, "kept");
      const retrying = await backend.submit(failing, null, { queue: t.queue });
      await t.until("the run to wait for its retry", async () => (await retrying.result()).status === "retrying");
      await retrying.cancel();
      await assert.rejects(retrying.output({ timeout: "10s" }), TaskCancelledError);
    },
    { needs: ["cancelWaiting"] },
  ),
  rule6(
    "one whose worker is lost before it hears of that is cancelled, and does not begin again",
    async (t) => {
      const backend = (await t.backend()).register(block);
      const lost = await t.spawnWorker();
      const run = await backend.submit(block, { file: t.effects, line: "held", waitMs: 120_000 }, { queue: t.queue });
      await t.until("the task to begin", () => t.lines().length > 0);
      lost.kill("SIGKILL");
      await run.cancel();
      await backend.startWorker({ queues: [t.queue] });
      await assert.rejects(run.output({ timeout: "60s" }), TaskCancelledError);
      assert.equal((await run.result()).status, "cancelled");
      assert.equal(t.lines().length, 1);
    },
    { needs: ["cancelRunning"], timeoutMs: 90_000 },
  ),
  rule6(
    "one that is cancelled as it ends has one outcome, for those who wait and for those who look",
    async (t) => {
      const other = await t.backend();
      const asked: Promise<void>[] = [];
      const ends = defineTask({
        name: "cancelled_as_it_ends",
        handler: async (ms: number, context) => {
          asked.push(other.cancel(context.id));
          await new Promise((resolve) => setTimeout(resolve, ms));
          return ms;
        },
      });
      const { backend } = await t.serve([ends], { concurrency: 5 });
      const runs = await backend.submitMany(
        Array.from({ length: 20 }, (_, n) => ({ task: ends, input: 4 * n, options: { queue: t.queue } })),
      );
      const outcomes = async () => {
        const results = await Promise.all(runs.map((run) => run.result()));
        return results.map((result) => (result.status === "completed" ? result.output : result.status));
      };
      const told = await Promise.all(
        runs.map((run) =>
          run.output({ timeout: "20s" }).catch((error: unknown) => {
            assert.ok(error instanceof TaskCancelledError, String(error));
            return "cancelled";
          }),
        ),
      );
      await Promise.all(asked);
      assert.deepEqual(await outcomes(), told);
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      assert.deepEqual(await outcomes(), told);
    },
    { needs: ["cancelRunning"] },
  ),
];
