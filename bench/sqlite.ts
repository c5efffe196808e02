import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createBackend, silentLogger, type TaskBackend } from "@task-backend/core";
import { sqlite } from "@task-backend/sqlite";
import { bareQueue } from "./bare-sqlite.ts";
import { inLanes, median, percentile, seconds, type Bench, type Row, type Table } from "./measure.ts";
import { openPlainjob } from "./plainjob.ts";
import { startWorkerProcess, stopProcess } from "./processes.ts";
import { add, chainOfTen, increment } from "./tasks.ts";

/*
 * Compares our backend with the engine alone and a peer, in one run with the same durability, and in turns, so that a busy machine
 * affects all of them alike. Figures are medians of the rounds.
 */

const here = dirname(fileURLToPath(import.meta.url));
const LANES = 50;

const folder = mkdtempSync(join(tmpdir(), "task-backend-bench-"));
let files = 0;
const newFile = (): string => join(folder, `${++files}.db`);
let quick = false;
const DURABILITIES = ["full", "normal"] as const;
let synchronous: (typeof DURABILITIES)[number] = "full";

async function open(file: string): Promise<TaskBackend> {
  const backend = await createBackend(sqlite({ file, synchronous }), { log: silentLogger });
  return backend.register(add, increment, chainOfTen);
}

async function throughput(): Promise<Row[]> {
  const [ROUNDS, COUNT] = quick ? [1, 2_000] : [3, 10_000];
  const rates = { submit: { ours: [], bare: [], peer: [] }, process: { ours: [], bare: [], peer: [] } } as Record<
    "submit" | "process",
    Record<"ours" | "bare" | "peer", number[]>
  >;
  for (let round = 0; round < ROUNDS; round++) {
    const backend = await open(newFile());
    rates.submit.ours.push(COUNT / (await seconds(() => inLanes(COUNT, LANES, (index) => backend.submit(add, { a: index, b: 1 })))));
    rates.process.ours.push(
      COUNT /
        (await seconds(async () => {
          let left = COUNT;
          await new Promise<void>((resolve, reject) => {
            backend.startWorker({ concurrency: LANES, onAttempt: () => --left === 0 && resolve() }).catch(reject);
          });
        })),
    );
    await backend.close();

    const bare = bareQueue(newFile(), synchronous);
    rates.submit.bare.push(COUNT / (await seconds(() => bare.submit(COUNT, LANES))));
    rates.process.bare.push(COUNT / (await seconds(() => bare.process(LANES))));
    bare.close();

    const peer = await openPlainjob(join(here, "peers"), newFile(), synchronous);
    if (!peer) continue;
    rates.submit.peer.push(COUNT / (await seconds(() => peer.submit(COUNT))));
    rates.process.peer.push(COUNT / (await seconds(() => peer.process(COUNT))));
    peer.close();
  }
  return (["submit", "process"] as const).map((what) => {
    const { ours, bare, peer } = rates[what];
    const [mine, theirs] = [median(ours), peer.length > 0 ? median(peer) : undefined];
    return {
      name: what === "submit" ? `submits, ${LANES} at a time` : `processed, concurrency ${LANES}`,
      unit: "/s",
      ours: mine,
      bare: median(bare),
      ...(theirs !== undefined && { peer: theirs, goal: { text: "ahead of plainjob", reached: mine / theirs } }),
    };
  });
}

/** The time from submit to result in this process, through a worker in another one. */
async function latency(): Promise<Row[]> {
  const file = newFile();
  const backend = await open(file);
  const worker = await startWorkerProcess({
    TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/sqlite"),
    TASK_BACKEND_URL: `sqlite:${file}?synchronous=${synchronous}`,
  });
  const rounds = quick ? 100 : 1_000;
  const took: number[] = [];
  for (let index = 0; index < rounds; index++) {
    took.push(1_000 * (await seconds(async () => (await backend.submit(add, { a: index, b: 1 })).output())));
  }
  const chains: number[] = [];
  for (let index = 0; index < rounds / 10; index++)
    chains.push(1_000 * (await seconds(async () => (await backend.submit(chainOfTen, 0)).output())));
  await stopProcess(worker);
  await backend.close();
  const p50 = median(took);
  return [
    { name: "submit to result across processes, p50", unit: "ms", ours: p50, goal: { text: "under 5 ms", reached: 5 / p50 } },
    { name: "submit to result across processes, p99", unit: "ms", ours: percentile(took, 0.99) },
    { name: "chain of 10 across processes, p50", unit: "ms", ours: median(chains) },
  ];
}

async function workflows(): Promise<Row[]> {
  const backend = await open(newFile());
  const submits: number[] = [];
  for (let index = 0; index < 200; index++) submits.push(1_000 * (await seconds(() => backend.submit(chainOfTen, 0))));
  await backend.startWorker({ concurrency: LANES });
  const count = quick ? 100 : 500;
  const alone: number[] = [];
  const many = await seconds(async () => {
    const runs = await backend.submitMany(Array.from({ length: count }, () => ({ task: chainOfTen, input: 0 })));
    await Promise.all(runs.map((run) => run.output()));
  });
  for (let index = 0; index < 100; index++) alone.push(1_000 * (await seconds(async () => (await backend.submit(chainOfTen, 0)).output())));
  await backend.close();
  // A step alone takes two transactions, so the disk sets its minimum: the time of two transactions of one row.
  const bare = bareQueue(newFile(), synchronous);
  const sync = (1_000 * (await seconds(() => bare.submit(500, 1)))) / 500;
  bare.close();
  const [submit, step] = [median(submits), (1_000 * many) / (count * 10)];
  return [
    { name: "workflow submit, p50", unit: "ms", ours: submit, goal: { text: "under 5 ms", reached: 5 / submit } },
    { name: `durable step, ${count} chains of 10 at a time`, unit: "ms", ours: step, goal: { text: "under 0.5 ms", reached: 0.5 / step } },
    {
      name: "durable step, one chain of 10 at a time",
      unit: "ms",
      ours: median(alone) / 10,
      bare: 2 * sync,
      goal: { text: "under 0.5 ms", reached: 5 / median(alone) },
    },
  ];
}

/** The resident memory while 200,000 tasks run. */
async function memory(): Promise<Row[]> {
  const backend = await open(newFile());
  await backend.startWorker({ concurrency: LANES });
  const total = quick ? 20_000 : 200_000;
  const samples: number[] = [];
  for (let tenth = 0; tenth < 10; tenth++) {
    await inLanes(total / 10, LANES, async (index) => (await backend.submit(add, { a: index, b: 1 })).output());
    samples.push(process.memoryUsage().rss / 1_048_576);
  }
  await backend.close();
  const [early, late] = [Math.max(...samples.slice(1, 4)), Math.max(...samples.slice(7))];
  return [
    {
      name: `memory after ${total} tasks, beside after 40 % of them`,
      unit: "MiB",
      ours: late,
      bare: early,
      goal: { text: "flat (within 20 %)", reached: (early * 1.2) / late },
    },
  ];
}

export const benchSqlite: Bench = async (options) => {
  quick = options.quick;
  const tables: Table[] = [];
  try {
    for (synchronous of options.synchronous === undefined ? DURABILITIES : DURABILITIES.filter((one) => one === options.synchronous)) {
      const rows = [...(await throughput()), ...(await latency()), ...(await workflows()), ...(await memory())];
      tables.push({ title: `sqlite, synchronous=${synchronous}`, columns: { bare: "bare SQL", peer: "plainjob" }, rows });
    }
    return tables;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
