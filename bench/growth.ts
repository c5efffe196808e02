import { randomBytes } from "node:crypto";
import { defineTask, getBackend, silentLogger, type TaskBackend } from "@task-backend/core";
import { median, seconds } from "./measure.ts";
import type { Place } from "./places.ts";
import { startWorkerProcess, stopProcess } from "./processes.ts";
import { add, chains, echo, nap } from "./tasks.ts";

/*
 * How the cost of a backend grows: with the number of waiting runs, the length of a workflow and the size of a payload, and with
 * more worker processes. Only our backend is measured: the shape of each line matters.
 */

/** One line of a chart. */
export interface Growth {
  readonly chart: "waiting" | "steps" | "payload" | "workers";
  readonly points: readonly { readonly at: number; readonly value: number }[];
}

/** All lines of a backend. */
export interface Grown {
  /** The server with its version, as observed. */
  readonly server: string;
  readonly lines: readonly Growth[];
}

const BATCH = 1_000;
const LANES = 20;
/** The load of one worker process: `concurrency` naps of `ms` milliseconds at a time. */
const NAPS = { concurrency: 10, ms: 50 };

/** Tasks per second from a queue, by the number of further tasks that wait in it. */
async function waiting(backend: TaskBackend, depths: readonly number[]): Promise<Growth> {
  const atFirst = await fromQueue(backend, 0, 200);
  const measured = Math.min(Math.max(Math.round(atFirst * 2), 200), 10_000);
  const points = [];
  for (const at of depths) points.push({ at, value: await fromQueue(backend, at, measured) });
  return { chart: "waiting", points };
}

/** The rate of the first `measured` tasks, while `more` others wait behind them. */
async function fromQueue(backend: TaskBackend, more: number, measured: number): Promise<number> {
  // Each measurement has its own task: Hatchet looks for work by task, and only at the first waiting runs.
  const queue = `waiting_${more}_${randomBytes(3).toString("hex")}`;
  const task = defineTask({ name: queue, queue, handler: async ({ a, b }: { a: number; b: number }) => a + b });
  backend.register(task);
  for (let left = more + measured; left > 0; left -= BATCH) {
    const items = Array.from({ length: Math.min(left, BATCH) }, (_, index) => ({
      task,
      input: { a: index, b: 1 },
    }));
    await backend.submitMany(items);
  }
  let finish = (_rate: number): void => {};
  const rate = new Promise<number>((resolve) => (finish = resolve));
  let done = 0;
  let startedAt = 0;
  const onAttempt = (): void => {
    // The first tasks are left out: they include the start of the worker.
    if (++done === LANES) startedAt = performance.now();
    if (done === measured) finish((1_000 * (measured - LANES)) / (performance.now() - startedAt));
  };
  const worker = await backend.startWorker({ queues: [queue], concurrency: LANES, onAttempt });
  const reached = await rate;
  await worker.stop();
  return reached;
}

/** Milliseconds per step of a single chain. */
async function steps(backend: TaskBackend, lengths: readonly number[], rounds: number): Promise<Growth> {
  const points = [];
  for (const at of lengths) {
    const chain = chains.get(at);
    if (!chain) throw new Error(`There is no chain of ${at}.`);
    const took: number[] = [];
    for (let index = -1; index < Math.max(rounds / at, 3); index++) {
      const ms = 1_000 * (await seconds(async () => (await backend.submit(chain, 0)).output()));
      if (index >= 0) took.push(ms / at);
    }
    points.push({ at, value: median(took) });
  }
  return { chart: "steps", points };
}

/** Milliseconds from submit to result, by the size of the payload in each direction. */
async function payload(backend: TaskBackend, sizes: readonly number[], rounds: number): Promise<Growth> {
  const points = [];
  for (const at of sizes) {
    const data = "x".repeat(at);
    const took: number[] = [];
    for (let index = -2; index < rounds; index++) {
      const ms = 1_000 * (await seconds(async () => (await backend.submit(echo, { data })).output()));
      if (index >= 0) took.push(ms);
    }
    points.push({ at, value: median(took) });
  }
  return { chart: "payload", points };
}

/** Tasks per second, each with a short nap, by the number of worker processes. */
async function workers(backend: TaskBackend, place: Place, counts: readonly number[], forMs: number): Promise<Growth> {
  const points = [];
  for (const at of counts) {
    const processes = await Promise.all(
      Array.from({ length: at }, () => startWorkerProcess(place, { queue: nap.queue, concurrency: NAPS.concurrency })),
    );
    const startedAt = performance.now();
    let done = 0;
    await Promise.all(
      Array.from({ length: at * NAPS.concurrency * 2 }, async () => {
        while (performance.now() - startedAt < forMs) {
          await (await backend.submit(nap, { ms: NAPS.ms })).output();
          done++;
        }
      }),
    );
    points.push({ at, value: (1_000 * done) / (performance.now() - startedAt) });
    await Promise.all(processes.map(stopProcess));
  }
  return { chart: "workers", points };
}

export async function measureGrowth(place: Place, quick: boolean): Promise<Grown> {
  const open = async (): Promise<TaskBackend> =>
    (
      await getBackend({
        type: place["TASK_BACKEND_TYPE"] as string,
        ...(place["TASK_BACKEND_URL"] !== undefined && { url: place["TASK_BACKEND_URL"] }),
        log: silentLogger,
      })
    ).register(add, echo, nap, ...chains.values());
  const backend = await open();
  const worker = await startWorkerProcess(place);
  const lines = [
    await steps(backend, quick ? [1, 10] : [1, 10, 100], quick ? 10 : 100),
    await payload(backend, [100, 10_000, 1_000_000], quick ? 5 : 40),
  ];
  await stopProcess(worker);
  lines.push(await workers(backend, place, quick ? [1, 2] : [1, 2, 4, 8, 16], quick ? 2_000 : 10_000));
  // This is measured last, because the waiting tasks stay in the queue.
  lines.push(await waiting(backend, quick ? [10, 1_000] : [10, 1_000, 100_000]));
  await backend.close();
  const { engine, version } = backend.capabilities;
  return { server: version.startsWith(engine) ? version : `${engine} ${version}`, lines };
}
