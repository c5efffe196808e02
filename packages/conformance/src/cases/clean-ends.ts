import assert from "node:assert/strict";
import { BackendClosedError, defineTask, defineWorkflow, TaskBackendError, type Run } from "@task-backend/core";
import { casesOf } from "../suite.ts";

const rule33 = casesOf(33);
const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

/** The time limit for an end that should come at once: engines say goodbye to their servers, and the machine is busy. */
const END_MS = 15_000;

/** The error's code, or `resolved`. */
const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "resolved",
    (error: unknown) => (error instanceof TaskBackendError ? error.code : String(error)),
  );

async function within<T>(what: string, work: Promise<T>, limitMs = END_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>(
    (_, reject) => (timer = setTimeout(() => reject(new Error(`${what} took longer than ${limitMs} ms.`)), limitMs)),
  );
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

export const cleanEndCases = [
  rule33("after close() a backend takes no run any more, also when its worker was still starting", async (t) => {
    const first = await t.serve([echo]);
    await (await first.backend.submit(echo, 1, { queue: t.queue })).output({ timeout: "15s" });
    await within("close()", first.backend.close());
    const racing = await t.backend();
    const starting = racing.register(echo).startWorker({ queues: [t.queue] });
    const closing = racing.close();
    const started = await within("a start that meets close()", starting).then(
      (worker) => (worker.healthy() ? "a healthy worker" : "a stopped worker"),
      (error: unknown) => (error instanceof BackendClosedError ? "closed" : String(error)),
    );
    assert.match(started, /^(closed|a stopped worker)$/);
    await within("close()", closing);
    const producer = await t.backend();
    const run = await producer.submit(echo, "nobody", { queue: t.queue });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    const result = await run.result();
    assert.deepEqual([result.status, result.attempts], ["pending", 0]);
    await run.cancel();
  }),
  rule33("waits that close() ends, and calls after it, reject with BACKEND_CLOSED", async (t) => {
    const backend = await t.backend();
    const run = await backend.submit(echo, 1, { queue: t.queue });
    const waits = [run.output(), run.output({ timeout: "1h" }), run.output({ signal: new AbortController().signal })].map(codeOf);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await within("close() with pending waits", Promise.all([backend.close(), backend.close()]));
    assert.deepEqual(await within("the waits", Promise.all(waits)), ["BACKEND_CLOSED", "BACKEND_CLOSED", "BACKEND_CLOSED"]);
    const calls = [
      backend.submit(echo, 1, { queue: t.queue }),
      backend.submitMany([{ task: echo, input: 1, options: { queue: t.queue } }]),
      backend.getResult(run.id),
      backend.getRun(run.id),
      backend.cancel(run.id),
      backend.signal(run.id, "x"),
      run.output(),
      backend.startWorker({ queues: [t.queue] }),
    ];
    assert.deepEqual([...new Set(await Promise.all(calls.map(codeOf)))], ["BACKEND_CLOSED"]);
    await within("a second close()", backend.close());
    await (await (await t.backend()).getRun(run.id)).cancel();
  }),
  rule33(
    "a handler that submits, waits and looks during its grace period keeps its backend",
    async (t) => {
      const { backend: other } = await t.serve([echo], { queues: [`${t.queue}-other`] });
      const backend = await t.backend();
      let begun = false;
      const parent = defineTask({
        name: "parent",
        retry: { attempts: 1 },
        handler: async () => {
          begun = true;
          await new Promise((resolve) => setTimeout(resolve, 700));
          const child = await backend.submit(echo, "of the child", { queue: `${t.queue}-other` });
          const output = await child.output({ timeout: "20s" });
          return [output, (await backend.getResult(child.id)).status];
        },
      });
      await backend.register(parent).startWorker({ queues: [t.queue], grace: "30s" });
      const run = await backend.submit(parent, null, { queue: t.queue });
      const { id } = run;
      await t.until("the handler to begin", () => begun);
      await within("close()", backend.close(), 40_000);
      // The end may become visible a moment after the engine accepted it; no worker is left that could run it again.
      await (await other.getRun(id)).output({ timeout: "15s" }).catch(() => {});
      const result = await other.getResult(id);
      assert.ok(result.status === "completed", `${result.status} ${"error" in result ? result.error?.message : ""}`);
      assert.deepEqual(result.output, ["of the child", "completed"]);
    },
    { timeoutMs: 60_000 },
  ),
  rule33(
    "stop and close end within the grace period and a moment, with a deaf handler, waiting workflows and runs that wait for a retry",
    async (t) => {
      let deafStarted = false;
      let release = (): void => {};
      const deaf = defineTask({
        name: "deaf",
        handler: async () => {
          deafStarted = true;
          await new Promise<void>((resolve) => (release = resolve));
        },
      });
      const retries = defineTask({
        name: "retries",
        retry: { attempts: 2, backoff: { delay: "1h" } },
        handler: async () => Promise.reject(new Error("again")),
      });
      const waits = defineWorkflow({ name: "waits", queue: t.queue, handler: async (wf) => wf.waitForSignal("never") });
      const { backend, worker } = await t.serve([deaf, retries, waits]);
      const { features } = backend.capabilities;
      const runs: Run[] = [await backend.submit(deaf, null, { queue: t.queue })];
      if (features.backoff !== "unsupported") runs.push(await backend.submit(retries, null, { queue: t.queue }));
      if (features.workflows !== "unsupported") runs.push(await backend.submit(waits, null, { queue: t.queue }));
      await t.until("the deaf handler to begin", () => deafStarted);
      await within("stop()", Promise.all([worker.stop({ grace: "1s" }), worker.stop({ grace: "1s" })]));
      await within("a second stop()", worker.stop());
      assert.equal(worker.healthy(), false);
      await Promise.all(runs.map((run) => run.cancel()));
      release();
      await within("close()", backend.close());
    },
    { timeoutMs: 60_000 },
  ),
  rule33(
    "a worker started after another has stopped takes up what that one left",
    async (t) => {
      const { backend, worker } = await t.serve([echo]);
      await within("stop()", worker.stop());
      const run = await backend.submit(echo, "next", { queue: t.queue });
      const next = await backend.startWorker({ queues: [t.queue] });
      assert.equal(await run.output({ timeout: "15s" }), "next");
      await within("stop() and close() at once", Promise.all([next.stop(), backend.close()]));
    },
    { timeoutMs: 40_000 },
  ),
  rule33(
    "a process that has closed its backend has nothing left that keeps it alive",
    async (t) => {
      const program = t.spawnProgram("closes");
      await t.until(
        () => `the program to close; it said: ${program.output()}`,
        () => program.output().includes("\nclosed ") || program.ended(),
        90_000,
      );
      assert.match(program.output(), /output done\nwaits \S.*\nclosed BACKEND_CLOSED BACKEND_CLOSED\n/);
      assert.equal(await within("the end of the process after close()", program.exited), 0);
      const id = /waits (.*)/.exec(program.output())?.[1] as string;
      await (await t.backend()).cancel(id);
    },
    { timeoutMs: 120_000 },
  ),
  rule33(
    "so has one whose start of a worker met close(), and one that could not connect",
    async (t) => {
      const races = t.spawnProgram("races");
      const fails = t.spawnProgram("fails", { nowhere: true });
      for (const [program, said] of [
        [races, /^(rejected BACKEND_CLOSED|stopped)$/m],
        [fails, /^failed [A-Z_]+$/m],
      ] as const) {
        await t.until(
          () => `the program to say something; it said: ${program.output()}`,
          () => program.output().includes("\n") || program.ended(),
          90_000,
        );
        assert.match(program.output(), said);
        assert.equal(await within("the end of the process", program.exited), 0, program.output());
      }
    },
    { timeoutMs: 120_000 },
  ),
];
