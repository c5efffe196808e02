import type { IQueueBackend, Worker } from "bullmq";
import type { Lane } from "../store.ts";

/** A queue on PostgreSQL: waits for the notifications of the one listener of the backend. */
export class PostgresLane implements Lane {
  readonly queue: string;
  readonly workerName: string;
  readonly backend: IQueueBackend;
  readonly #worker: Worker<unknown, unknown, string, IQueueBackend>;
  #news = true;
  #wake: (() => void) | undefined;

  constructor(worker: Worker<unknown, unknown, string, IQueueBackend>, workerName: string) {
    this.queue = worker.name;
    this.workerName = workerName;
    this.backend = worker.backend;
    this.#worker = worker;
    worker.on("error", () => {});
  }

  /** Something was added to this queue, or may have been. */
  notice(): void {
    this.#news = true;
    this.#wake?.();
  }

  async wait(timeoutMs: number): Promise<undefined> {
    if (!this.#news) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, timeoutMs);
      });
      clearTimeout(timer);
      this.#wake = undefined;
    }
    this.#news = false;
  }

  async passOn(): Promise<void> {
    // Every worker hears of every job.
  }

  async interrupt(): Promise<void> {
    this.notice();
  }

  startStalledCheck(): Promise<void> {
    return this.#worker.startStalledCheckTimer();
  }

  async close(): Promise<void> {
    await this.#worker.close(true);
  }
}
