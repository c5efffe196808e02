import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { bullmq } from "@task-backend/bullmq";
import { createBackend, silentLogger, type TaskBackend } from "@task-backend/core";
import { inLanes, median, percentile, seconds, type Bench, type Row, type Table } from "./measure.ts";
import { startProcess, startWorkerProcess, stopProcess } from "./processes.ts";
import { openRawBullmq } from "./raw-bullmq.ts";
import { add, chainOfTen, increment } from "./tasks.ts";

/*
 * Compares our backend with raw BullMQ on the same server, in turns. Raw BullMQ is measured without priorities, as its users write
 * it, and with a priority on each job, which our backend gives every job.
 */

const LANES = 50;
const here = dirname(fileURLToPath(import.meta.url));

interface Size {
  readonly rounds: number;
  readonly count: number;
  readonly trips: number;
}

const optionsFor = (url: string) => (url.startsWith("postgres") ? { url, schema: "ours_bench" } : { url, prefix: "ours-bench" });

async function open(url: string): Promise<TaskBackend> {
  const backend = await createBackend(bullmq(optionsFor(url)), { log: silentLogger });
  return backend.register(add, increment, chainOfTen);
}

type Contender = "ours" | "raw" | "prioritised";

/** The rate of `count` events, from the first to the last. */
class Rate {
  readonly #count: number;
  readonly #done: (rate: number) => void;
  #left: number;
  #startedAt = 0;

  constructor(count: number, done: (rate: number) => void) {
    this.#count = count;
    this.#left = count;
    this.#done = done;
  }

  readonly tick = (): void => {
    if (this.#left === this.#count) this.#startedAt = performance.now();
    if (--this.#left === 0) this.#done((1_000 * (this.#count - 1)) / (performance.now() - this.#startedAt));
  };
}

interface Turn {
  submit(index: number): Promise<unknown>;
  /** Runs the submitted jobs. Returns the rate. */
  process(): Promise<number>;
}

async function oursTurn(url: string, count: number): Promise<Turn & { close(): Promise<void> }> {
  const backend = await open(url);
  return {
    submit: (index) => backend.submit(add, { a: index, b: 1 }),
    process: async () => {
      let finish = (_rate: number): void => {};
      const finished = new Promise<number>((resolve) => (finish = resolve));
      const rate = new Rate(count, finish);
      const worker = await backend.startWorker({ queues: ["bench"], concurrency: LANES, onAttempt: rate.tick });
      const reached = await finished;
      await worker.stop();
      return reached;
    },
    close: () => backend.close(),
  };
}

async function rawTurn(url: string, count: number, priority?: number): Promise<Turn & { close(): Promise<void> }> {
  const raw = await openRawBullmq({ url, queue: `raw-${randomBytes(4).toString("hex")}`, ...(priority !== undefined && { priority }) });
  return {
    submit: (index) => raw.submit({ a: index, b: 1 }),
    process: async () => {
      let reached = 0;
      await raw.process(LANES, new Rate(count, (rate) => (reached = rate)).tick, count);
      return reached;
    },
    close: () => raw.close(),
  };
}

/** Measures all contenders in many short rounds, in changing order, so that a noisy machine affects all alike. */
async function throughput(url: string, { rounds, count }: Size): Promise<Row[]> {
  const turns = { ours: await oursTurn(url, count), raw: await rawTurn(url, count), prioritised: await rawTurn(url, count, 3) };
  const contenders: readonly Contender[] = ["ours", "raw", "prioritised"];
  const empty = (): Record<Contender, number[]> => ({ ours: [], raw: [], prioritised: [] });
  const rates = { submit: empty(), process: empty() };
  for (let round = -2; round < rounds; round++) {
    for (let place = 0; place < contenders.length; place++) {
      const who = contenders[(place + round + contenders.length) % contenders.length] as Contender;
      const submit = count / (await seconds(() => inLanes(count, LANES, (index) => turns[who].submit(index))));
      const process = await turns[who].process();
      // The first rounds only warm up.
      if (round < 0) continue;
      rates.submit[who].push(submit);
      rates.process[who].push(process);
    }
  }
  for (const who of contenders) await turns[who].close();
  return (["submit", "process"] as const).map((what) => {
    const { ours: mine, raw: bare, prioritised } = rates[what];
    return {
      name: what === "submit" ? `submits, ${LANES} at a time` : `processed, concurrency ${LANES}`,
      unit: "/s",
      ours: median(mine),
      bare: median(bare),
      peer: median(prioritised),
      goal: { text: "95 % of raw", reached: median(mine) / median(bare) / 0.95 },
    };
  });
}

/** The time from submit to result in this process, through a worker in another one. */
async function latency(url: string, { trips }: Size): Promise<Row[]> {
  const backend = await open(url);
  const { schema, prefix } = { schema: undefined, prefix: undefined, ...optionsFor(url) };
  const own = new URL(url);
  if (schema) own.searchParams.set("schema", schema);
  if (prefix) own.searchParams.set("prefix", prefix);
  const worker = await startWorkerProcess({
    TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/bullmq"),
    TASK_BACKEND_URL: own.href,
  });
  const queue = `raw-${randomBytes(4).toString("hex")}`;
  const jiti = join(dirname(createRequire(import.meta.url).resolve("jiti/package.json")), "lib/jiti-cli.mjs");
  const rawWorker = await startProcess([jiti, join(here, "raw-bullmq-worker.ts"), url, queue], {}, "raw worker ready");
  const raw = await openRawBullmq({ url, queue });
  const took: Record<"ours" | "raw", number[]> = { ours: [], raw: [] };
  for (let index = 0; index < trips; index++) {
    const mine = async (): Promise<unknown> => (await backend.submit(add, { a: index, b: 1 })).output();
    const theirs = (): Promise<unknown> => raw.roundTrip({ a: index, b: 1 });
    const order = index % 2 === 0 ? (["ours", "raw"] as const) : (["raw", "ours"] as const);
    for (const who of order) took[who].push(1_000 * (await seconds(who === "ours" ? mine : theirs)));
  }
  const chains: number[] = [];
  for (let index = 0; index < trips / 10; index++)
    chains.push(1_000 * (await seconds(async () => (await backend.submit(chainOfTen, 0)).output())));
  await stopProcess(worker);
  await stopProcess(rawWorker);
  await raw.close();
  await backend.close();
  const row = (name: string, at: number): Row => {
    const [mine, bare] = [percentile(took.ours, at), percentile(took.raw, at)];
    return { name, unit: "ms", ours: mine, bare, goal: { text: "5 % added", reached: (1.05 * bare) / mine } };
  };
  return [
    row("submit to result across processes, p50", 0.5),
    row("submit to result across processes, p99", 0.99),
    { name: "chain of 10 across processes, p50", unit: "ms", ours: median(chains) },
  ];
}

async function tableOf(title: string, url: string, size: Size): Promise<Table> {
  const rows = [...(await throughput(url, size)), ...(await latency(url, size))];
  return { title, columns: { bare: "raw", peer: "raw, prioritised" }, rows };
}

export const benchBullmq: Bench = async ({ quick }) => {
  const { REDIS_URL, POSTGRES_URL } = process.env;
  if (!REDIS_URL || !POSTGRES_URL) throw new Error("The bench of bullmq needs REDIS_URL and POSTGRES_URL; npm run bench sets them.");
  return [
    await tableOf(
      "bullmq on Redis",
      REDIS_URL,
      quick ? { rounds: 4, count: 3_000, trips: 300 } : { rounds: 20, count: 5_000, trips: 2_000 },
    ),
    await tableOf(
      "bullmq on PostgreSQL",
      POSTGRES_URL,
      quick ? { rounds: 3, count: 500, trips: 200 } : { rounds: 12, count: 1_000, trips: 1_000 },
    ),
  ];
};
