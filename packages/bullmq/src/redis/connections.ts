import { BackendUnavailableError } from "@task-backend/core/adapter";
import { Redis, type Cluster, type RedisOptions } from "ioredis";
import { SCRIPTS } from "./scripts.ts";

/** How long a call waits for a reconnect. */
const READY_MS = 2_000;
/** How often a command is retried when the connection breaks; all of our commands may be carried out twice. */
const RETRIES = 3;
const RECONNECT_MAX_MS = 1_000;
/** How long ioredis waits for a connection to close. Its timer keeps the process alive even after the connection has closed. */
const DISCONNECT_MS = 100;

type Client = Redis | Cluster;

/**
 * The connections of one backend: one for calls, which fail soon when Redis is unreachable; one for workers, which wait until Redis
 * is back; one for the messages of others.
 */
export class RedisConnections {
  readonly #given: string | Client | RedisOptions;
  readonly #clients = new Set<Client>();
  #producer: Client | undefined;
  #worker: Client | undefined;
  #subscriber: Client | undefined;
  readonly #listeners = new Map<string, Set<(message: string) => void>>();

  constructor(given: string | Client | RedisOptions) {
    this.#given = given;
  }

  get producer(): Client {
    if (!this.#producer) throw new BackendUnavailableError("The connection to Redis is not open.");
    return this.#producer;
  }

  /** The number of the Redis database that the connections use. */
  get database(): number {
    const { options } = this.producer;
    return "db" in options ? (options.db ?? 0) : 0;
  }

  async open(signal: AbortSignal): Promise<Client> {
    this.#producer = this.#make({ maxRetriesPerRequest: RETRIES });
    const client = this.#producer;
    try {
      await connected(client, signal);
      return client;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The connection that all workers of this process share; each queue also has a blocking one. */
  worker(): Client {
    return (this.#worker ??= this.#make({ maxRetriesPerRequest: null }));
  }

  get isReady(): boolean {
    return this.producer.status === "ready";
  }

  healthy(): boolean {
    return (this.#worker ?? this.#producer)?.status === "ready";
  }

  /** The connection from which BullMQ makes the blocking one for its QueueEvents. */
  events(): Client {
    return this.worker();
  }

  /**
   * Waits for the connection before a producer's call: commands must not pile up for an unreachable server, and be carried out long
   * after the call was given up.
   * @throws BackendUnavailableError
   */
  async ready(): Promise<void> {
    const client = this.producer;
    if (client.status === "ready") return;
    let timer: NodeJS.Timeout | undefined;
    let onReady: (() => void) | undefined;
    const ready = await new Promise<boolean>((resolve) => {
      onReady = () => resolve(true);
      client.once("ready", onReady);
      timer = setTimeout(() => resolve(false), READY_MS);
    });
    clearTimeout(timer);
    client.removeListener("ready", onReady as () => void);
    if (!ready) throw new BackendUnavailableError(`There is no connection to Redis (${client.status}).`);
  }

  async subscribe(channel: string, listener: (message: string) => void): Promise<() => void> {
    const listeners = this.#listeners.get(channel) ?? new Set();
    this.#listeners.set(channel, listeners.add(listener));
    if (!this.#subscriber) {
      this.#subscriber = this.#make({ maxRetriesPerRequest: null });
      this.#subscriber.on("message", (from: string, message: string) => {
        for (const one of this.#listeners.get(from) ?? []) one(message);
      });
    }
    await this.#subscriber.subscribe(channel);
    return () => listeners.delete(listener);
  }

  close(): void {
    for (const client of this.#clients) abandon(client);
    this.#clients.clear();
  }

  #make(given: RedisOptions): Client {
    const overrides: RedisOptions = { disconnectTimeout: DISCONNECT_MS, ...given };
    const options: RedisOptions = { retryStrategy: (times) => Math.min(50 * times, RECONNECT_MAX_MS), ...overrides };
    const target = this.#given;
    const client =
      typeof target === "string"
        ? new Redis(target, options)
        : isClient(target)
          ? isCluster(target)
            ? target.duplicate([], { redisOptions: overrides })
            : target.duplicate(overrides)
          : new Redis({ ...options, ...target, ...overrides });
    client.on("error", () => {});
    // Each call that finds the connection broken adds a listener. The limit is not 0, because BullMQ would raise it.
    client.setMaxListeners(Infinity);
    for (const [name, { lua, numberOfKeys }] of Object.entries(SCRIPTS)) client.defineCommand(name, { lua, numberOfKeys });
    this.#follow(client);
    return client;
  }

  /** Keeps track of a client and of the copies that BullMQ makes of it to wait for markers and events. */
  #follow(client: Client): void {
    this.#clients.add(client);
    client.once("end", () => this.#clients.delete(client));
    const duplicate = client.duplicate.bind(client) as (...given: unknown[]) => Client;
    client.duplicate = ((...given: unknown[]) => {
      const copy = duplicate(...given);
      this.#follow(copy);
      return copy;
    }) as never;
  }
}

function isClient(given: object): given is Client {
  return "duplicate" in given && "defineCommand" in given;
}

function isCluster(client: Client): client is Cluster {
  return "nodes" in client;
}

/** Resolves when the server has answered; rejects with the first error before that, or with the signal's reason. Removes its listeners. */
async function connected(client: Client, signal: AbortSignal): Promise<void> {
  let end = (): void => {};
  const answered = new Promise<void>((resolve, reject) => {
    const onError = (error: Error): void => reject(error);
    const onAbort = (): void => reject(signal.reason as Error);
    const onReady = (): void => void client.ping().then(() => resolve(), reject);
    end = () => {
      client.off("error", onError);
      client.off("ready", onReady);
      signal.removeEventListener("abort", onAbort);
    };
    client.on("error", onError);
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    else if (client.status === "ready") onReady();
    else client.on("ready", onReady);
  });
  await answered.finally(end);
}

/** A command that ioredis keeps until it has an answer, or a connection. */
interface Pending {
  readonly command: { reject(error: Error): void };
}
interface Queues {
  readonly offlineQueue?: Queue | null;
  readonly commandQueue?: Queue | null;
  readonly prevCommandQueue?: Queue | null;
}
interface Queue {
  shift(): Pending | undefined;
}

/** Closes a connection, even while it reconnects: ioredis would leave its commands unanswered, and BullMQ's timers for them running. */
function abandon(client: Client): void {
  client.disconnect();
  const { offlineQueue, commandQueue, prevCommandQueue } = client as unknown as Queues;
  for (const queue of [offlineQueue, commandQueue, prevCommandQueue]) {
    for (let pending = queue?.shift(); pending; pending = queue?.shift()) pending.command.reject(new Error("Connection is closed."));
  }
}
