import { createPostgresBackend, Queue, QueueEvents, Worker, type ConnectionOptions } from "bullmq";

/** BullMQ as its own users write it: retries, kept results, one queue. */
export interface RawBullmq {
  submit(data: { a: number; b: number }): Promise<unknown>;
  /** Processes until `count` jobs are done. */
  process(concurrency: number, onCompleted: () => void, count: number): Promise<void>;
  /** The time from submit to result, by QueueEvents. */
  roundTrip(data: { a: number; b: number }): Promise<unknown>;
  close(): Promise<void>;
}

export interface RawOptions {
  readonly url: string;
  readonly queue: string;
  /** Jobs with a priority take another path through BullMQ. */
  readonly priority?: number;
}

const WEEK_S = 7 * 24 * 3600;

/** The connection for a URL, and the argument that makes BullMQ use PostgreSQL. */
function storeOf(url: string) {
  if (!url.startsWith("postgres"))
    return { connection: { url, maxRetriesPerRequest: null } as ConnectionOptions, factory: undefined as never };
  const connection = { connectionString: url, schema: "raw_bench", migrate: true, max: 10 } as unknown as ConnectionOptions;
  return { connection, factory: createPostgresBackend as never };
}

export async function openRawBullmq({ url, queue: name, priority }: RawOptions): Promise<RawBullmq> {
  const { connection, factory } = storeOf(url);
  const queue = new Queue<{ a: number; b: number }, number>(name, { connection }, factory);
  const events = new QueueEvents(name, { connection }, factory);
  await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
  const keep = { age: WEEK_S };
  const opts = {
    attempts: 3,
    backoff: { type: "exponential", delay: 1_000 },
    removeOnComplete: keep,
    removeOnFail: keep,
    ...(priority !== undefined && { priority }),
  };
  return {
    submit: (data) => queue.add("add", data, opts),
    process: async (concurrency, onCompleted, count) => {
      let left = count;
      const worker = rawWorker(url, name, concurrency);
      await new Promise<void>((resolve) => {
        worker.on("completed", () => {
          onCompleted();
          if (--left === 0) resolve();
        });
      });
      await worker.close();
    },
    roundTrip: async (data) => (await queue.add("add", data, opts)).waitUntilFinished(events),
    close: async () => {
      await events.close();
      await queue.close();
    },
  };
}

export function rawWorker(url: string, name: string, concurrency: number): Worker {
  const { connection, factory } = storeOf(url);
  return new Worker(name, async ({ data }: { data: { a: number; b: number } }) => data.a + data.b, { connection, concurrency }, factory);
}
