import { randomBytes } from "node:crypto";
import { bullmq } from "@task-backend/bullmq";
import { createBackend, defineTask, defineWorkflow, silentLogger, type Run, type TaskBackend } from "@task-backend/core";
import { createPostgresBackend, Queue } from "bullmq";
import { Redis } from "ioredis";
import pg from "pg";
import { afterEach, describe, expect, test } from "vitest";
import { onEngine } from "./engines/required.ts";

/*
 * Changes that others make to the store, and data that it refuses: damaged and foreign jobs, removed records, other databases and
 * schemas, and runs that end before they start.
 */

interface World {
  readonly backend: TaskBackend;
  /** The BullMQ queue, for BullMQ's own tools. */
  readonly queue: Queue;
  /** Overwrites one field of a job. */
  readonly damage: (jobId: string, field: "data" | "opts" | "progress", text: string) => Promise<void>;
  readonly close: () => Promise<void>;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const space = (): string => `t${randomBytes(5).toString("hex")}`;
const code = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "fulfilled",
    (error: { code?: string; failure?: { code: string } }) => error.failure?.code ?? error.code,
  );

const echo = defineTask({ name: "echo", queue: "q", retry: { attempts: 1 }, handler: async (value: unknown) => value as never });
const waits = defineWorkflow({ name: "waits", queue: "q", handler: async (wf) => wf.waitForSignal("go") });

let open: World[] = [];
afterEach(async () => {
  for (const world of open) await world.close();
  open = [];
});

async function onRedis(url: string, prefix = space(), options = {}): Promise<World> {
  const backend = await createBackend(bullmq({ url, prefix, ...options }), { log: silentLogger });
  const queue = new Queue("q", { prefix, connection: { url } });
  const client = new Redis(url);
  const world: World = {
    backend,
    queue,
    damage: async (jobId, field, text) => void (await client.hset(`${prefix}:q:${jobId}`, field, text)),
    close: async () => {
      await Promise.all([backend.close(), queue.close()]);
      client.disconnect();
    },
  };
  open.push(world);
  return world;
}

async function onPostgres(url: string, schema = space(), options = {}): Promise<World> {
  const backend = await createBackend(bullmq({ url, schema, ...options }), { log: silentLogger });
  const pool = new pg.Pool({ connectionString: url, options: `-c search_path=${schema}`, max: 4 });
  // The schema must be named: BullMQ uses its default, `bullmq`, with any pool, and a new database has no such schema.
  const connection = { connectionString: url, schema };
  const queue = new Queue("q", { connection }, createPostgresBackend as never);
  const world: World = {
    backend,
    queue,
    damage: async (jobId, field, text) => void (await pool.query(`UPDATE job SET ${field} = $2::jsonb WHERE id = $1`, [jobId, text])),
    close: async () => {
      await Promise.all([backend.close(), queue.close()]);
      await pool.end();
    },
  };
  open.push(world);
  return world;
}

function others(make: (options?: object) => Promise<World>, damages: readonly (readonly ["data" | "opts" | "progress", string])[]): void {
  test("damaged and foreign jobs fail as such, and what is behind them goes on", async () => {
    const { backend, queue, damage } = await make();
    backend.register(echo, waits);
    const runs = await backend.submitMany(damages.map(() => ({ task: echo, input: 1 })));
    for (const [index, [field, text]] of damages.entries()) await damage((runs[index] as Run).id.slice(2), field, text);
    const foreign = await Promise.all([queue.add("echo", null), queue.add("echo", { to: "ann" }), queue.add("else", [1])]);
    const last = await backend.submit(echo, "behind");
    await backend.startWorker({ queues: ["q"], concurrency: 1 });
    expect(await last.output({ timeout: "15s" })).toBe("behind");
    for (const id of [...runs.map((run) => run.id), ...foreign.map((job) => `q:${job.id}`)]) {
      const run = await backend.getRun(id);
      expect([id, await code(run.output({ timeout: "10s" }))]).toEqual([id, "CORRUPT_RUN"]);
      expect(await run.result()).toMatchObject({ status: "failed", error: { code: "CORRUPT_RUN" } });
    }
  });

  test("a damaged step fails, and so its workflow hears of it", async () => {
    const { backend, damage } = await make();
    const flow = defineWorkflow({ name: "flow", queue: "f", handler: async (wf) => wf.run(echo, 1) });
    backend.register(echo, flow);
    await backend.startWorker({ queues: ["f"] });
    const run = await backend.submit(flow, null);
    const step = `q:${run.id.split(":")[1]}.0`;
    await expect.poll(() => code(backend.getRun(step)), { timeout: 10_000 }).toBe("fulfilled");
    await damage(step.slice(2), "data", JSON.stringify({ input: 1, headers: 5, kind: "task", parent: [run.id, 0] }));
    await backend.startWorker({ queues: ["q"] });
    expect(await code(run.output({ timeout: "10s" }))).toBe("CORRUPT_RUN");
  });

  test("a wait ends when its record is removed", async () => {
    const { backend, queue } = await make();
    const run = await backend.submit(echo, 1, { delay: "1h" });
    const wait = code(run.output());
    await sleep(300);
    await queue.remove(run.id.slice(2));
    expect(await wait).toBe("RUN_NOT_FOUND");
  });

  test("a step that is cancelled in the tick that made it never runs, and is on record as cancelled", async () => {
    const { backend } = await make();
    const ran: string[] = [];
    const charge = defineTask({ name: "charge", queue: "q", handler: async () => void ran.push("charge") });
    const refund = defineTask({ name: "refund", queue: "q", handler: async () => void ran.push("refund") });
    const shop = defineWorkflow({
      name: "shop",
      queue: "f",
      handler: async (wf) => {
        await wf.run(echo, 1);
        await wf.run(charge, null).catch(async () => wf.run(refund, null));
      },
    });
    backend.register(echo, charge, refund, shop);
    const ticks = await backend.startWorker({ queues: ["f"] });
    const runs = await backend.submitMany(Array.from({ length: 10 }, () => ({ task: shop, input: null })));
    const stepOf = (run: { id: string }, n: number): string => `q:${run.id.split(":")[1]}.${n}`;
    for (const run of runs) await expect.poll(() => code(backend.getRun(stepOf(run, 0))), { timeout: 10_000 }).toBe("fulfilled");
    await ticks.stop();
    await backend.startWorker({ queues: ["q"] });
    for (const run of runs) {
      await (await backend.getRun(stepOf(run, 0))).output({ timeout: "10s" });
      await run.cancel();
    }
    // The journal now holds both: the end of the first step, which starts the charge, and the cancellation.
    await backend.startWorker({ queues: ["f"] });
    for (const run of runs) {
      expect(await code(run.output({ timeout: "10s" }))).toBe("TASK_CANCELLED");
      expect(await backend.getResult(stepOf(run, 1))).toMatchObject({ status: "cancelled", attempts: 0 });
    }
    expect(ran).toEqual(runs.map(() => "refund"));
  });

  test("a run known by name only keeps the signals sent before a worker has it, also past one that does not know it", async () => {
    const { backend, queue } = await make();
    const run = await backend.submit("waits", null, { queue: "q" });
    await run.signal("go", 1);
    const other = defineTask({ name: "other", queue: "q", handler: async () => 1 });
    const worker = await backend.register(other).startWorker({ queues: ["q"] });
    await expect.poll(async () => (await queue.getJob(run.id.slice(2)))?.attemptsStarted, { timeout: 10_000 }).toBeGreaterThan(0);
    await worker.stop();
    backend.register(waits);
    await backend.startWorker({ queues: ["q"] });
    expect(await run.output({ timeout: "15s" })).toBe(1);
  });

  test("a signal to a waiting task is refused as one to no workflow", async () => {
    const { backend } = await make();
    const run = await backend.submit(echo, 1);
    expect(await code(run.signal("go"))).toBe("INVALID_ARGUMENT");
  });

  test("a workflow does not complete over a signal that was accepted", async () => {
    const { backend } = await make();
    const counter = defineWorkflow({
      name: "counter",
      queue: "q",
      handler: async (wf) => {
        await wf.waitForSignal("close");
        let taken = 0;
        const next = (): Promise<boolean> =>
          wf.waitForSignal("add", { timeout: 0 }).then(
            () => true,
            () => false,
          );
        while (await next()) taken++;
        return taken;
      },
    });
    backend.register(counter);
    await backend.startWorker({ queues: ["q"] });
    for (let round = 0; round < 10; round++) {
      const run = await backend.submit(counter, null);
      let accepted = 0;
      await run.signal("close");
      for (let n = 0; n < 30; n++) {
        const answer = await code(run.signal("add"));
        if (answer === "RUN_SETTLED") break;
        accepted++;
        await sleep(Math.random() * 10);
      }
      expect(await run.output({ timeout: "10s" })).toBe(accepted);
    }
  });

  test("a deadline that passed while no worker was up comes before a signal that came after it", async () => {
    const { backend } = await make();
    const offer = defineWorkflow({
      name: "offer",
      queue: "q",
      handler: async (wf) => wf.waitForSignal("accept", { timeout: "300ms" }).catch(() => "expired"),
    });
    backend.register(offer);
    const worker = await backend.startWorker({ queues: ["q"] });
    const run = await backend.submit(offer, null);
    await expect.poll(async () => (await run.result()).status, { timeout: 10_000 }).toBe("running");
    await worker.stop();
    await sleep(2_000);
    await run.signal("accept", "too late");
    await backend.startWorker({ queues: ["q"] });
    expect(await run.output({ timeout: "10s" })).toBe("expired");
  });

  test("what one tick asks for may be too much to be stored: the run fails, and its worker goes on", async () => {
    const { backend } = await make();
    const much = "x".repeat(15 * 1024 * 1024);
    const flood = defineWorkflow({
      name: "flood",
      queue: "q",
      handler: async (wf) => void (await Promise.all(Array.from({ length: 6 }, () => wf.run(echo, much)))),
    });
    backend.register(echo, flood, waits);
    await backend.startWorker({ queues: ["q"] });
    const run = await backend.submit(flood, null);
    expect(await code(run.output({ timeout: "15s" }))).toBe("PAYLOAD_TOO_LARGE");
    const next = await backend.submit(waits, null);
    await next.signal("go", 1);
    expect(await next.output({ timeout: "10s" })).toBe(1);
  });

  test("no worker leaves a listener behind, and stopping twice leaves no timer", async () => {
    const { backend } = await make();
    backend.register(echo);
    for (let n = 0; n < 3; n++) {
      const worker = await backend.startWorker({ queues: ["q"] });
      await worker.stop();
      await worker.stop({ grace: "1h" });
    }
    const run = await backend.submit(echo, "still");
    await backend.startWorker({ queues: ["q"] });
    expect(await run.output({ timeout: "10s" })).toBe("still");
  });
}

async function cancelStaysAtHome(worlds: readonly World[]): Promise<void> {
  const load = defineTask({
    name: "load",
    queue: "q",
    retry: { attempts: 1 },
    handler: async () => {
      await sleep(1_200);
      return "done";
    },
  });
  for (const { backend } of worlds) await backend.register(load).startWorker({ queues: ["q"] });
  const runs = await Promise.all(worlds.map(({ backend }) => backend.submit(load, null, { idempotencyKey: "one" })));
  const [kept, cancelled] = runs;
  expect(kept?.id).toBe(cancelled?.id);
  for (const run of runs) await expect.poll(async () => (await run.result()).status, { timeout: 10_000 }).toBe("running");
  await cancelled?.cancel();
  expect(await kept?.output({ timeout: "15s" })).toBe("done");
  expect(await code(cancelled?.output({ timeout: "10s" }) as Promise<unknown>)).toBe("TASK_CANCELLED");
}

onEngine("redis", "REDIS_URL", "bullmq on Redis and the world", (url) => {
  describe("bullmq on Redis and the world", () => {
    others(
      (options) => onRedis(url, space(), options),
      [
        ["data", "null"],
        ["data", "{bad"],
        ["data", '{"input":1,"parent":5}'],
        ["data", "[]"],
        ["opts", "{bad"],
        ["opts", "null"],
        ["progress", "{bad"],
      ],
    );

    test("a cancel in another database of the same server aborts nothing here", async () => {
      const prefix = space();
      const other = Object.assign(new URL(url), { pathname: "/1" }).href;
      await cancelStaysAtHome([await onRedis(url, prefix), await onRedis(other, prefix)]);
    });

    test("BullMQ's own keys are no runs, and asking writes nothing", async () => {
      const prefix = space();
      const { backend } = await onRedis(url, prefix);
      await backend.submit(echo, 1);
      for (const id of ["q:meta", "q:events", "q:marker", "q:pc", "q:prioritized", "nowhere:1", "q:", ":1", "a:b:c"]) {
        const calls = [backend.getResult(id), backend.getRun(id), backend.signal(id, "go"), backend.cancel(id)];
        expect([id, ...(await Promise.all(calls.map(code)))]).toEqual([id, ...calls.map(() => "RUN_NOT_FOUND")]);
      }
      const client = new Redis(url);
      expect(await client.keys(`${prefix}:nowhere:*`)).toEqual([]);
      expect(await client.hget(`${prefix}:q:meta`, "finishedOn")).toBeNull();
      client.disconnect();
    });
  });
});

onEngine("postgres", "POSTGRES_URL", "bullmq on PostgreSQL and the world", (url) => {
  describe("bullmq on PostgreSQL and the world", () => {
    others(
      (options) => onPostgres(url, space(), options),
      [
        ["data", "null"],
        ["data", "5"],
        ["data", '{"input":1,"parent":5}'],
        ["data", '{"input":1,"headers":{"a":1}}'],
        ["data", "[]"],
      ],
    );

    test("a cancel in another schema of the same database aborts nothing here", async () => {
      await cancelStaysAtHome([await onPostgres(url), await onPostgres(url)]);
    });

    test("what can be no id is no run", async () => {
      const { backend } = await onPostgres(url);
      for (const id of ["nowhere:1", "q:", ":1", "a:b:c"]) {
        const calls = [backend.getResult(id), backend.signal(id, "go"), backend.cancel(id)];
        expect([id, ...(await Promise.all(calls.map(code)))]).toEqual([id, ...calls.map(() => "RUN_NOT_FOUND")]);
      }
    });
  });
});

test("a URL shows no secret, and its query holds options that there are", () => {
  for (const url of [
    "redis://:pa/MARKED@host",
    "redis://user:12/MARKED@host:6379",
    "redis://user:12?MARKED@host",
    "redis://user:12#MARKED@host",
    "postgres://user:pa/MARKED@host/db",
    "postgres://user:12/MARKED@host/db",
  ]) {
    const thrown = ((): unknown => {
      try {
        return bullmq({ url });
      } catch (error) {
        return error;
      }
    })();
    expect(thrown).toMatchObject({ code: "CONFIGURATION" });
    expect(JSON.stringify(thrown, Object.getOwnPropertyNames(thrown))).not.toContain("MARKED");
  }
  expect(() => bullmq({ url: "redis://host?retentoin=1d" })).toThrow(/"retentoin", which is no option.*retention/);
  expect(() => bullmq({ url: "postgres://host/db?schema=x&sslmode=disable" })).not.toThrow();
  expect(() => bullmq({ url: "redis://host/3?family=6" })).not.toThrow();
});
