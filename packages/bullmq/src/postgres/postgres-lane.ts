import type { IQueueBackend, Worker } from "bullmq";
import type { Lane, NextJob } from "../store.ts";
import type { Listener } from "./listener.ts";

/** A queue on PostgreSQL. It waits for notifications of the backend's only listener. */
export class PostgresLane implements Lane {
  readonly queue: string;
  readonly workerName: string;
  readonly backend: IQueueBackend;
  readonly #worker: Worker<unknown, unknown, string, IQueueBackend>;
  readonly #listener: Listener;
  #news = true;
  #wake: (() => void) | undefined;
  #unsubscribe: () => void = () => {};

  constructor(worker: Worker<unknown, unknown, string, IQueueBackend>, workerName: string, listener: Listener) {
    this.queue = worker.name;
    this.workerName = workerName;
    this.backend = worker.backend;
    this.#worker = worker;
    this.#listener = listener;
    worker.on("error", () => {});
  }

  claim(token: string): Promise<NextJob> {
    return this.backend.moveToActive(token, this.workerName) as Promise<NextJob>;
  }

  async wait(timeoutMs: number): Promise<number | undefined> {
    if (!this.#news) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, timeoutMs);
      });
      clearTimeout(timer);
      this.#wake = undefined;
    }
    const heard = this.#news;
    this.#news = false;
    return heard ? 0 : undefined;
  }

  async announce(): Promise<void> {
    // There is nothing to do: every worker hears of every job, and asks the store itself.
  }

  async interrupt(): Promise<void> {
    this.#notice();
  }

  async start(): Promise<void> {
    this.#unsubscribe = await this.#listener.on("bullmq_jobs", (payload) => {
      if (payload === undefined || payload === this.queue) this.#notice();
    });
    await this.#worker.startStalledCheckTimer();
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    await this.#worker.close(true);
  }

  /** Notes that this queue has, or may have, a new job. */
  #notice(): void {
    this.#news = true;
    this.#wake?.();
  }
}
