import type { Json } from "@task-backend/core/adapter";
import { QueueEvents } from "bullmq";
import type { OnFinished } from "../store.ts";
import type { RedisConnections } from "./connections.ts";

/** BullMQ's event streams of the queues that have waits. */
export class RedisEvents {
  readonly #connections: RedisConnections;
  readonly #prefix: string;
  readonly #streams = new Map<string, Promise<QueueEvents<Json>>>();

  constructor(connections: RedisConnections, prefix: string) {
    this.#connections = connections;
    this.#prefix = prefix;
  }

  async watch(queue: string, onFinished: OnFinished): Promise<void> {
    let stream = this.#streams.get(queue);
    if (!stream) {
      stream = this.#open(queue, onFinished);
      this.#streams.set(queue, stream);
      stream.catch(() => this.#streams.delete(queue));
    }
    await stream;
  }

  async #open(queue: string, onFinished: OnFinished): Promise<QueueEvents<Json>> {
    // The stream starts after the last event, so that nothing is missed between now and the first read.
    const [last] = await this.#connections.producer.xrevrange(`${this.#prefix}:${queue}:events`, "+", "-", "COUNT", 1);
    const events = new QueueEvents<Json>(queue, {
      prefix: this.#prefix,
      connection: this.#connections.events(),
      lastEventId: last?.[0] ?? "0-0",
      skipVersionCheck: true,
    });
    events.on("error", () => {});
    events.on("completed", ({ jobId, returnvalue }) => onFinished(queue, jobId, returnvalue));
    events.on("failed", ({ jobId }) => onFinished(queue, jobId));
    return events;
  }

  async close(): Promise<void> {
    const streams = await Promise.allSettled(this.#streams.values());
    for (const stream of streams) if (stream.status === "fulfilled") await stream.value.close().catch(() => {});
  }
}
