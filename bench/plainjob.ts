import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** plainjob over better-sqlite3, with the durability of the others. Undefined when it is not installed. */
export interface Plainjob {
  submit(count: number): void;
  /** Runs the queued jobs; resolves when `count` jobs are done. */
  process(count: number): Promise<void>;
  close(): void;
}

interface Connection {
  pragma(text: string): unknown;
  close(): void;
}

interface PlainjobModule {
  better(connection: Connection): unknown;
  defineQueue(options: { connection: unknown; logger: unknown }): { add(type: string, data: unknown): void; close(): void };
  defineWorker(
    type: string,
    processor: (job: { data: string }) => Promise<void>,
    options: { queue: unknown; logger: unknown; onCompleted: () => void },
  ): { start(): Promise<void>; stop(): Promise<void> };
}

export async function openPlainjob(peers: string, file: string, synchronous: string): Promise<Plainjob | undefined> {
  const require = createRequire(join(peers, "package.json"));
  let module: PlainjobModule;
  let connection: Connection;
  try {
    module = (await import(pathToFileURL(require.resolve("plainjob")).href)) as PlainjobModule;
    connection = new (require("better-sqlite3") as new (file: string) => Connection)(file);
  } catch {
    return undefined;
  }
  const silent = { error() {}, warn() {}, info() {}, debug() {} };
  const queue = module.defineQueue({ connection: module.better(connection), logger: silent });
  // plainjob sets NORMAL itself, but the comparison needs the same durability for all.
  connection.pragma(`synchronous = ${synchronous}`);
  return {
    submit: (count) => {
      for (let index = 0; index < count; index++) queue.add("add", { a: index, b: 1 });
    },
    process: async (count) => {
      let done = 0;
      let finish = (): void => {};
      const finished = new Promise<void>((resolve) => (finish = resolve));
      const add = async (job: { data: string }): Promise<void> => {
        const { a, b } = JSON.parse(job.data) as { a: number; b: number };
        if (Number.isNaN(a + b)) throw new Error("not numbers");
      };
      const worker = module.defineWorker("add", add, { queue, logger: silent, onCompleted: () => ++done === count && finish() });
      const stopped = worker.start();
      await finished;
      await worker.stop();
      await stopped;
    },
    close: () => queue.close(),
  };
}
