import { createBackend, chain, defineTask, silentLogger, type Run, type TaskBackend } from "@task-backend/core";
import { bullmq } from "@task-backend/bullmq";
import { afterAll, expect, test } from "vitest";
import { stop, type Engine, type Server } from "../engines/engine.ts";
import { discard } from "../engines/index.ts";
import { postgres } from "../engines/postgres.ts";
import { redis } from "../engines/redis.ts";
import { onEngine } from "./engines/required.ts";

/*
 * The server of these tests dies in the middle of work, and comes back with the data that it had on disk.
 */

const TASKS = 1_000;
const CHAINS = 100;

const double = defineTask({
  name: "double",
  queue: "restart",
  retry: { attempts: 10, backoff: { delay: 100, jitter: false } },
  handler: async (n: number) => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return 2 * n;
  },
});
const eightfold = chain("eightfold", [double, double, double]);

const servers: Server[] = [];
afterAll(async () => {
  for (const server of servers) await discard(server);
});

async function connect(url: string): Promise<TaskBackend> {
  const backend = await createBackend(bullmq({ url, lock: "3s", stalledInterval: "1s" }), { log: silentLogger });
  return backend.register(double, eightfold);
}

async function restart(engine: Engine, server: Server, signal: NodeJS.Signals): Promise<void> {
  await stop(server, signal);
  const { port } = new URL(server.env[engine.variable] as string);
  servers.push(await engine.start(engine.find() as string, { again: { folder: server.folder, port: Number(port) } }));
}

for (const [engine, signal] of [
  [redis, "SIGKILL"],
  // An immediate shutdown is like a crash: PostgreSQL recovers from its log.
  [postgres, "SIGQUIT"],
] as const) {
  onEngine(engine.name, engine.variable, `bullmq: ${engine.name} restarts`, () => {
    test(`bullmq: ${engine.name} restarts in the middle of ${TASKS} tasks and ${CHAINS} chains, and nothing is lost`, async () => {
      const server = await engine.start(engine.find() as string);
      servers.push(server);
      const url = server.env[engine.variable] as string;
      const producer = await connect(url);
      const workers = [await connect(url), await connect(url)];
      const tasks = await producer.submitMany(Array.from({ length: TASKS }, (_, n) => ({ task: double, input: n })));
      const chains = await producer.submitMany(Array.from({ length: CHAINS }, (_, n) => ({ task: eightfold, input: n })));
      for (const backend of workers) await backend.startWorker({ queues: ["restart"], concurrency: 10 });
      const waits = Promise.all([...tasks, ...chains].map((run: Run<number>) => run.output({ timeout: "90s" })));
      waits.catch(() => {});
      await expect.poll(async () => (await (tasks[100] as Run).result()).status, { timeout: 20_000 }).toBe("completed");
      expect((await (chains.at(-1) as Run).result()).status).not.toBe("completed");

      await restart(engine, server, signal);

      const outputs = await waits;
      expect(outputs).toEqual([...tasks.map((_, n) => 2 * n), ...chains.map((_, n) => 8 * n)]);
      await Promise.all([producer, ...workers].map((backend) => backend.close()));
    }, 120_000);
  });
}
