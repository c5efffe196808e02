import type { IQueueBackend, Worker } from "bullmq";
import type { Cluster, Redis } from "ioredis";
import type { Lane } from "../store.ts";

/** A queue on Redis: waits on BullMQ's marker, on a blocking connection of its own. */
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
  }

  async wait(timeoutMs: number): Promise<number | undefined> {
    const marker = await this.backend.waitForJob(Math.max(timeoutMs / 1000, this.backend.minimumBlockTimeout));
    return marker && marker.score > 0 ? marker.score : undefined;
  }

  async passOn(): Promise<void> {
    await this.#client.zadd(this.backend.keys["marker"] as string, 0, "0");
  }

  async interrupt(): Promise<void> {
    await this.backend.disconnectBlocking(true);
  }

  startStalledCheck(): Promise<void> {
    return this.#worker.startStalledCheckTimer();
  }

  async close(): Promise<void> {
    await this.#worker.close(true);
  }
}
