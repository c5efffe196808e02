import { setTimeout as pause } from "node:timers/promises";
import type { PostgresConnection } from "bullmq";

const CHANNELS = ["bullmq_jobs", "bullmq_events", "task_backend"] as const;
type Channel = (typeof CHANNELS)[number];

const RETRY_MS = 500;

/**
 * The only LISTEN connection of a backend. BullMQ notifies `bullmq_jobs` and `bullmq_events` with a queue's name; we notify
 * `task_backend` with the id of a cancelled run. After a reconnect all listeners are called, because anything may have been missed.
 */
export class Listener {
  readonly #connection: PostgresConnection;
  readonly #listeners = new Map<Channel, Set<(payload: string | undefined) => void>>();
  #listening: Promise<void> | undefined;
  #closed = false;

  constructor(connection: PostgresConnection) {
    this.#connection = connection;
    connection.on("listenerinvalidated", () => {
      this.#listening = undefined;
      if (!this.#closed && this.#listeners.size > 0) void this.#listenAgain();
    });
  }

  /** Adds a listener. Once this resolves, no notification is missed. */
  async on(channel: Channel, listener: (payload: string | undefined) => void): Promise<() => void> {
    const listeners = this.#listeners.get(channel) ?? new Set();
    this.#listeners.set(channel, listeners.add(listener));
    this.#listening ??= this.#listen();
    await this.#listening;
    return () => listeners.delete(listener);
  }

  close(): void {
    this.#closed = true;
    this.#listeners.clear();
  }

  readonly #onNotification = ({ channel, payload }: { channel: string; payload?: string }): void => this.#tell(channel as Channel, payload);

  async #listen(): Promise<void> {
    try {
      const client = await this.#connection.getListenClient();
      // The client may be left over from an attempt that failed half way.
      client.removeListener("notification", this.#onNotification);
      client.on("notification", this.#onNotification);
      for (const channel of CHANNELS) await client.query(`LISTEN ${channel}`);
    } catch (error) {
      this.#listening = undefined;
      throw error;
    }
  }

  async #listenAgain(): Promise<void> {
    while (!this.#closed) {
      try {
        await (this.#listening ??= this.#listen());
        for (const channel of CHANNELS) this.#tell(channel, undefined);
        return;
      } catch {
        await pause(RETRY_MS, undefined, { ref: false });
      }
    }
  }

  #tell(channel: Channel, payload: string | undefined): void {
    for (const listener of this.#listeners.get(channel) ?? []) listener(payload);
  }
}
