import { randomBytes } from "node:crypto";
import { bullmq } from "@task-backend/bullmq";
import { chain, createBackend, defineTask, defineWorkflow, silentLogger, type TaskBackend } from "@task-backend/core";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { onEngine } from "./engines/required.ts";
import { TcpProxy } from "../engines/tcp-proxy.ts";

const add = defineTask({ name: "add", queue: "q", handler: async ({ a, b }: { a: number; b: number }) => a + b });
const increment = defineTask({ name: "increment", queue: "q", handler: async (n: number) => n + 1 });
const twice = chain("twice", [increment, increment]);
const fails = defineTask({
  name: "fails",
  queue: "q",
  retry: { attempts: 1 },
  handler: async () => {
    throw Object.assign(new Error("no such file"), { code: "ENOENT" });
  },
});
const waits = defineWorkflow({ name: "waits", queue: "q", handler: async (wf) => wf.waitForSignal("go") });
const space = (): string => `t${randomBytes(5).toString("hex")}`;

async function open(options: Parameters<typeof bullmq>[0]): Promise<TaskBackend> {
  return (await createBackend(bullmq(options), { log: silentLogger })).register(add, increment, twice, fails, waits);
}

onEngine("redis", "REDIS_URL", "bullmq on Redis", (url) => {
  describe("bullmq on Redis, as BullMQ sees it", () => {
    let client: Redis;
    beforeAll(() => {
      client = new Redis(url);
    });
    afterAll(() => client.disconnect());

    test("jobs are readable with BullMQ's own tools: name, input in clear, result, error", async () => {
      const prefix = space();
      const backend = await open({ url, prefix });
      const queue = new Queue("q", { prefix, connection: { url } });
      const run = await backend.submit(add, { a: 1, b: 2 }, { priority: "high", headers: { trace: "t1" } });
      const id = run.id.slice("q:".length);
      const waiting = await queue.getJob(id);
      expect(waiting).toMatchObject({ name: "add", data: { input: { a: 1, b: 2 }, headers: { trace: "t1" } } });
      expect(await waiting?.getState()).toBe("prioritized");
      await backend.startWorker();
      expect(await run.output({ timeout: "10s" })).toBe(3);
      expect(await queue.getJob(id)).toMatchObject({ returnvalue: 3 });
      const failing = await backend.submit(fails, null);
      await failing.output({ timeout: "10s" }).catch(() => {});
      const failed = await queue.getJob(failing.id.slice("q:".length));
      expect(failed?.failedReason).toBe("no such file");
      expect(failed?.stacktrace?.[0]).toMatch(/^Error: no such file\n +at /);
      expect(await queue.getJobCounts("completed", "failed")).toEqual({ completed: 1, failed: 1 });
      await queue.close();
      await backend.close();
    });

    test("finished runs leave nothing behind, once the retention is over", async () => {
      const prefix = space();
      const backend = await open({ url, prefix, retention: 500 });
      await backend.startWorker();
      const runs = await Promise.all([
        ...Array.from({ length: 5 }, (_, n) => backend.submit(add, { a: n, b: 1 }, { idempotencyKey: `k${n}` })),
        backend.submit(twice, 1),
        backend.submit(fails, null),
        backend.submit(waits, null),
      ]);
      await backend.signal(runs[7]?.id as string, "go", 1, { dedupeId: "once" });
      await Promise.all(runs.map((run) => run.output({ timeout: "10s" }).catch(() => {})));
      const queueKeys = /:(completed|events|failed|id|marker|meta|pc|stalled|stalled-check)$/;
      const left = async (): Promise<string[]> => (await client.keys(`${prefix}:*`)).filter((key) => !queueKeys.test(key));
      await expect.poll(left, { timeout: 10_000 }).toEqual([]);
      await backend.close();
    });

    test("a limit of the engine passes through: BullMQ's limiter holds back", async () => {
      const backend = await open({ url, prefix: space(), worker: { limiter: { max: 2, duration: 400 } } });
      const startedAt = Date.now();
      await backend.startWorker();
      const runs = await backend.submitMany(Array.from({ length: 6 }, (_, n) => ({ task: add, input: { a: n, b: 0 } })));
      await Promise.all(runs.map((run) => run.output({ timeout: "10s" })));
      expect(Date.now() - startedAt).toBeGreaterThanOrEqual(800);
      await backend.close();
    });

    test("job options of BullMQ pass through native", async () => {
      const prefix = space();
      const backend = await open({ url, prefix });
      const run = await backend.submit(add, { a: 1, b: 1 }, { native: { bullmq: { keepLogs: 7 } } });
      const queue = new Queue("q", { prefix, connection: { url } });
      expect((await queue.getJob(run.id.slice(2)))?.opts.keepLogs).toBe(7);
      await queue.close();
      await backend.close();
    });

    test("a ready client, or options of one, serve as well as a URL; a given client stays open", async () => {
      const prefix = space();
      const { hostname, port } = new URL(url);
      const one = await open({ connection: client, prefix });
      const two = await open({ connection: { host: hostname, port: Number(port) }, prefix });
      await two.startWorker();
      expect(await (await one.submit(add, { a: 4, b: 5 })).output({ timeout: "10s" })).toBe(9);
      await one.close();
      await two.close();
      expect(await client.ping()).toBe("PONG");
    });

    test("a worker stops, and a backend closes, while the server is away", async () => {
      const { hostname, port } = new URL(url);
      const proxy = await TcpProxy.open({ host: hostname, port: Number(port) });
      const backend = await open({ url: `redis://127.0.0.1:${proxy.port}`, prefix: space() });
      const worker = await backend.startWorker();
      const run = await backend.submit(add, { a: 1, b: 1 });
      expect(await run.output({ timeout: "10s" })).toBe(2);
      await proxy.cut();
      const startedAt = Date.now();
      await worker.stop({ grace: 0 });
      await backend.close();
      expect(Date.now() - startedAt).toBeLessThan(10_000);
    });

    test("more queues than slots: none waits for ever behind another", async () => {
      const queues = ["a", "b", "c"].map((letter) => `${letter}-${space()}`);
      const backend = await open({ url, prefix: space() });
      const runs = await Promise.all(
        Array.from({ length: 60 }, (_, n) => backend.submit(add, { a: n, b: 0 }, { queue: queues[n % 3] as string })),
      );
      await backend.startWorker({ queues, concurrency: 1 });
      expect(await Promise.all(runs.map((run) => run.output({ timeout: "10s" })))).toEqual(runs.map((_, n) => n));
      await backend.close();
    });
  });
});

onEngine("postgres", "POSTGRES_URL", "bullmq on PostgreSQL", (url) => {
  describe("bullmq on PostgreSQL, as PostgreSQL sees it", () => {
    let client: pg.Client;
    beforeAll(async () => {
      client = new pg.Client({ connectionString: url });
      await client.connect();
    });
    afterAll(() => client.end());

    test("jobs are rows in PostgreSQL, and no key in Redis", async () => {
      const schema = space();
      const backend = await open({ url, schema });
      const queue = `q${space()}`;
      const run = await backend.submit(add, { a: 1, b: 2 }, { queue });
      const { rows } = await client.query<{ name: string; data: { input: unknown } }>(
        `SELECT name, data FROM "${schema}".job WHERE queue = $1`,
        [queue],
      );
      expect(rows).toMatchObject([{ name: "add", data: { input: { a: 1, b: 2 } } }]);
      await backend.startWorker({ queues: [queue] });
      expect(await run.output({ timeout: "10s" })).toBe(3);
      const redis = process.env["REDIS_URL"];
      if (redis) {
        const other = new Redis(redis);
        expect(await other.keys(`*${queue}*`)).toEqual([]);
        other.disconnect();
      }
      await backend.close();
    });

    test("finished runs leave nothing behind, once the retention is over", async () => {
      const schema = space();
      const backend = await open({ url, schema, retention: 500 });
      await backend.startWorker();
      const runs = await Promise.all([backend.submit(add, { a: 1, b: 1 }), backend.submit(twice, 1), backend.submit(waits, null)]);
      await backend.signal(runs[2].id, "go", 1, { dedupeId: "once" });
      await Promise.all(runs.map((run) => run.output({ timeout: "10s" })));
      const count = async (): Promise<number> => {
        const tables = ["job", "workflow", "journal", "timer", "child", "signal"].map((table) =>
          table === "job" ? table : `task_backend_${table}`,
        );
        const sums = tables.map((table) => `(SELECT count(*) FROM "${schema}".${table})`);
        return Number((await client.query<{ sum: string }>(`SELECT ${sums.join(" + ")} AS sum`)).rows[0]?.sum);
      };
      await expect.poll(count, { timeout: 10_000 }).toBe(0);
      await backend.close();
    });

    test("many processes may connect to a new schema at once; a pool of one's own serves as well", async () => {
      const schema = space();
      const backends = await Promise.all(Array.from({ length: 6 }, () => open({ url, schema })));
      await Promise.all(backends.map((backend) => backend.close()));
      // A pool given by the user must see the tables.
      const blind = new pg.Pool({ connectionString: url, max: 4 });
      await expect(open({ connection: blind })).rejects.toMatchObject({ name: "ConfigurationError" });
      await blind.end();
      await (await open({ url })).close();
      const pool = new pg.Pool({ connectionString: url, options: "-c search_path=bullmq", max: 4 });
      const backend = await open({ connection: pool });
      const queue = space();
      await backend.startWorker({ queues: [queue] });
      expect(await (await backend.submit(add, { a: 2, b: 2 }, { queue })).output({ timeout: "10s" })).toBe(4);
      await backend.close();
      await pool.end();
    });
  });
});

test("what cannot be is refused with the remedy, and secrets are not shown", async () => {
  expect(() => bullmq({ url: "amqp://host" })).toThrow(/starts with "amqp:"; it takes redis:, rediss:, postgres:/);
  expect(() => bullmq({ url: "redis://host", schema: "x" })).toThrow(/schema is for PostgreSQL only/);
  expect(() => bullmq({ url: "redis://host", wrong: 1 } as never)).toThrow(/They are url, connection, prefix/);
  expect(() => bullmq({ url: "redis://host?lock=soon" })).toThrow(/lock/);
  for (const schema of ['a"b', "1", "s".repeat(64), "a\0"])
    expect(() => bullmq({ url: "postgres://host/db", schema })).toThrow(/schema: it is no plain name of a schema/);
  for (const url of ["redis://user:secret-word@127.0.0.1:1", "postgres://user:secret-word@127.0.0.1:1/db"]) {
    const failed = await open({ url }).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(failed).toMatchObject({ name: "BackendUnavailableError" });
    expect(failed?.message).toMatch(/127\.0\.0\.1:1.*ECONNREFUSED.*Start the server/);
    expect(failed?.message).not.toContain("secret-word");
  }
});
