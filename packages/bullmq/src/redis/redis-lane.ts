import type { IQueueBackend, Worker } from "bullmq";
import type { Cluster, Redis } from "ioredis";
import type { Lane, NextJob } from "../store.ts";
import { readable } from "./raw-job.ts";

/** The method of BullMQ's Redis backend that runs all its scripts. */
interface ScriptRunner {
  execCommand(client: unknown, name: string, args: unknown[]): Promise<unknown>;
}

/** A queue on Redis. It waits for BullMQ's marker, on its own blocking connection. */
export class RedisLane implements Lane {
  readonly queue: string;
  readonly workerName: string;
  readonly backend: IQueueBackend;
  readonly #worker: Worker;
  readonly #client: Redis | Cluster;

  constructor(worker: Worker, workerName: string, client: Redis | Cluster) {
    this.queue = worker.name;
    this.workerName = workerName;
    this.backend = worker.backend;
    this.#worker = worker;
    this.#client = client;
    worker.on("error", () => {});
    const scripts = this.backend as unknown as ScriptRunner;
    const run = scripts.execCommand.bind(scripts);
    scripts.execCommand = async (...given) => readable(await run(...given));
  }

  claim(token: string): Promise<NextJob> {
    return this.backend.moveToActive(token, this.workerName) as Promise<NextJob>;
  }

  async wait(timeoutMs: number): Promise<number | undefined> {
    return (await this.backend.waitForJob(Math.max(timeoutMs / 1000, this.backend.minimumBlockTimeout)))?.score;
  }

  async announce(dueAtMs: number): Promise<void> {
    const marker = this.backend.keys["marker"] as string;
    // These are the markers that BullMQ's scripts set.
    if (dueAtMs > Date.now()) await this.#client.zadd(marker, dueAtMs, "1");
    else await this.#client.zadd(marker, 0, "0");
  }

  async interrupt(): Promise<void> {
    await this.backend.disconnectBlocking(true);
  }

  start(): Promise<void> {
    return this.#worker.startStalledCheckTimer();
  }

  async close(): Promise<void> {
    await this.#worker.close(true);
  }
}
