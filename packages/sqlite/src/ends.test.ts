import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createBackend, defineTask, defineWorkflow, silentLogger, type TaskBackend } from "@task-backend/core";
import type { Adapter } from "@task-backend/core/adapter";
import { afterAll, describe, expect, onTestFinished, test } from "vitest";
import { Changes } from "./changes.ts";
import { Database } from "./database.ts";
import { openConnection, type Connection } from "./driver.ts";
import { createAdapter, sqlite, type SqliteOptions } from "./index.ts";
import { parseOptions } from "./options.ts";

/*
 * Tests of how soon runs start, and that nothing is left when workers, backends and programs end.
 */

const folder = mkdtempSync(join(tmpdir(), "sqlite-ends-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newFile = (): string => join(folder, `${++files}.db`);
const root = join(import.meta.dirname, "../../..");

const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

async function open(options: SqliteOptions = {}): Promise<TaskBackend> {
  const backend = await createBackend(sqlite({ file: newFile(), ...options }), { log: silentLogger });
  onTestFinished(() => backend.close());
  return backend.register(echo);
}

/** Waits for a condition that comes true even on a busy machine. */
const eventually = (read: () => unknown): ReturnType<typeof expect.poll> => expect.poll(read, { timeout: 10_000 });

/** Checks that work takes less time than the poll under the watcher, at least once: the machine may be busy. */
async function soon(work: () => Promise<unknown>): Promise<void> {
  const took: number[] = [];
  while (took.length < 5) {
    const startedAt = performance.now();
    await work();
    took.push(performance.now() - startedAt);
    if ((took.at(-1) as number) < 900) return;
  }
  throw new Error(`None was soon: ${took.map(Math.round).join(", ")} ms.`);
}

/** Locks the file as another process would. */
function lock(file: string): Connection {
  const connection = openConnection(file, 5_000);
  connection.exec("BEGIN EXCLUSIVE");
  return connection;
}

/** Runs a program that must end by itself. */
const endsAlone = (body: string): Promise<unknown> =>
  promisify(execFile)(
    process.execPath,
    [
      "--input-type=module",
      "--eval",
      `const { createBackend, defineTask, silentLogger } = await import("@task-backend/core");
       const { sqlite } = await import("@task-backend/sqlite");
       ${body}`,
    ],
    { cwd: root, timeout: 20_000 },
  );

describe("promptness", () => {
  const task = (queue: string) => defineTask({ name: `on-${queue}`, queue, handler: async () => queue });

  test.for([":memory:", "file"])("each of several queues is served, in any order, over %s", async (where) => {
    const backend = await open({ file: where === "file" ? newFile() : where });
    const tasks = ["a", "b", "c"].map(task);
    backend.register(...tasks);
    await backend.startWorker({ queues: ["a", "b", "c"] });
    for (const one of [...tasks, ...tasks.toReversed()])
      await soon(async () => expect(await (await backend.submit(one, null)).output({ timeout: "10s" })).toBe(one.queue));
  });

  test("a slot that becomes free takes what waited, on the other queue as well", async () => {
    const backend = await open();
    let finish = (): void => {};
    const slow = defineTask({ name: "slow", queue: "a", handler: () => new Promise<void>((resolve) => (finish = resolve)) });
    backend.register(slow, task("b"));
    await backend.startWorker({ queues: ["a", "b"], concurrency: 1 });
    await soon(async () => {
      const first = await backend.submit(slow, null);
      await eventually(async () => (await first.result()).status).toBe("running");
      const second = await backend.submit("on-b", null);
      finish();
      expect(await second.output({ timeout: "10s" })).toBe("b");
    });
  });

  test("workflows and their steps on two workers of one process, and of two connections", async () => {
    const file = newFile();
    const [here, there] = [await open({ file }), await open({ file })];
    const step = task("steps");
    const flow = defineWorkflow({
      name: "flow",
      queue: "flows",
      handler: async (wf) => {
        for (let n = 0; n < 5; n++) await wf.run(step, null);
        return "done";
      },
    });
    for (const backend of [here, there]) backend.register(step, flow);
    await here.startWorker({ queues: ["flows"] });
    const near = await here.startWorker({ queues: ["steps"] });
    const runs = async (): Promise<void> => expect(await (await here.submit(flow, null)).output({ timeout: "15s" })).toBe("done");
    await soon(runs);
    await near.stop();
    await there.startWorker({ queues: ["steps"] });
    await soon(runs);
  });

  test("what is submitted while the file is held is claimed as soon as it is not", async () => {
    const file = newFile();
    const backend = await open({ file });
    await backend.startWorker();
    await soon(async () => {
      const held = lock(file);
      const runs = [backend.submit(echo, 1), backend.submit(echo, 2)];
      await new Promise((resolve) => setTimeout(resolve, 200));
      held.exec("COMMIT");
      held.close();
      for (const run of await Promise.all(runs)) await run.output({ timeout: "10s" });
    });
  });
});

describe("listeners", () => {
  test("one that throws after a commit repeats nothing and breaks no other", async () => {
    const database = await Database.open(parseOptions({ file: newFile() }, folder));
    onTestFinished(() => database.close());
    const reported: unknown[] = [];
    const changes = new Changes(database, (error) => reported.push(error));
    let told = 0;
    changes.subscribe(() => {
      throw new Error("a listener that throws");
    });
    changes.subscribe(() => told++);
    database.writer.onCommit = () => changes.tell();
    database.run("CREATE TABLE numbers (n INTEGER)");
    await Promise.all([1, 2, 3].map((n) => database.writer.write(() => database.run("INSERT INTO numbers VALUES (?)", n))));
    expect(database.get("SELECT count(*) AS count FROM numbers")).toMatchObject({ count: 3 });
    expect(told).toBe(1);
    expect(reported).toMatchObject([{ message: "a listener that throws" }]);
  });
});

describe("the bell", () => {
  test("wakes another connection, and is made again when somebody has removed it", async () => {
    const file = newFile();
    const settings = parseOptions({ file }, folder);
    const [one, other] = [await Database.open(settings), await Database.open(settings)];
    const changes = [one, other].map((database) => new Changes(database, () => {}));
    onTestFinished(() => {
      for (const each of changes) each.stop();
      one.close();
      other.close();
    });
    one.writer.ring = () => changes[0]?.ring();
    let told = 0;
    changes[1]?.subscribe(() => told++);
    for (const each of changes) each.start();
    one.run("CREATE TABLE numbers (n INTEGER)");
    await one.writer.write(() => one.run("INSERT INTO numbers VALUES (1)"));
    await eventually(() => told).toBeGreaterThan(0);
    rmSync(`${file}-bell`);
    await eventually(() => existsSync(`${file}-bell`)).toBe(true);
  });

  test("without it, in a folder that cannot be written, changes are found by looking", async () => {
    const file = newFile();
    // A folder where the bell should be: it can neither be made nor opened.
    mkdirSync(`${file}-bell`);
    const [one, other] = [await open({ file }), await open({ file })];
    const run = await one.submit(echo, 1);
    await other.register(echo).startWorker();
    expect(await run.output({ timeout: "10s" })).toBe(1);
  });
});

describe("clean ends", () => {
  test("a connect that fails, or is given up, leaves nothing open", async () => {
    const file = newFile();
    await (await open({ file })).close();
    const held = lock(file);
    const controller = new AbortController();
    const adapter: Adapter = sqlite({ file, lockTimeout: "30s" });
    const connecting = adapter.connect(controller.signal);
    const reason = new Error("given up");
    setTimeout(() => controller.abort(reason), 200);
    await expect(connecting).rejects.toThrow();
    await adapter.close();
    held.exec("ROLLBACK");
    held.close();
    await expect(adapter.get("x")).rejects.toMatchObject({ code: "BACKEND_UNAVAILABLE" });
    await endsAlone(`
      await createBackend(sqlite({ file: "/proc/none.db" }), { log: silentLogger }).then(() => process.exit(2), () => {});`);
  });

  test("a worker that cannot start leaves no timers, and none of its name in the file", async () => {
    const file = newFile();
    const backend = await open({ file, lockTimeout: "300ms" });
    const held = lock(file);
    await expect(backend.startWorker()).rejects.toMatchObject({ code: "BACKEND_UNAVAILABLE" });
    held.exec("ROLLBACK");
    expect(held.prepare("SELECT count(*) AS workers FROM workers").get()).toMatchObject({ workers: 0 });
    await backend.submit(echo, 1);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(held.prepare("SELECT status FROM runs").get()).toMatchObject({ status: "pending" });
    held.close();
  });

  test("closing an adapter ends its waits and its workers, also those that nobody stopped", { timeout: 30_000 }, () =>
    endsAlone(`
      const adapter = sqlite({ file: ${JSON.stringify(newFile())} });
      const backend = await createBackend(adapter, { log: silentLogger });
      backend.register(defineTask({ name: "slow", handler: () => new Promise(() => {}) }));
      await backend.startWorker();
      const run = await backend.submit("slow", 1);
      const ended = run.output().then(() => process.exit(2), (error) => error.code === "BACKEND_CLOSED" || process.exit(3));
      while ((await run.result()).status !== "running") await new Promise((resolve) => setTimeout(resolve, 20));
      await adapter.close();
      await ended;`),
  );

  test("a worker can be stopped twice, and then holds nothing", { timeout: 30_000 }, () =>
    endsAlone(`
      const backend = await createBackend(sqlite({ file: ${JSON.stringify(newFile())} }), { log: silentLogger });
      backend.register(defineTask({ name: "none", handler: () => 1 }));
      const worker = await backend.startWorker();
      await Promise.all([worker.stop(), worker.stop({ grace: "5s" })]);
      await worker.stop();`),
  );

  test("stopping ends while another process holds the file", { timeout: 30_000 }, async () => {
    const file = newFile();
    const backend = await open({ file, lockTimeout: "500ms" });
    let begun = false;
    const endless = defineTask({ name: "endless", handler: () => new Promise<void>(() => (begun = true)) });
    const worker = await backend.register(endless).startWorker();
    await backend.submit(endless, null);
    await eventually(() => begun).toBe(true);
    const held = lock(file);
    await worker.stop({ grace: 0 });
    held.exec("ROLLBACK");
    held.close();
  });
});

describe("a wait ends with its record", () => {
  test("when it is deleted, or pruned before anybody looked", async () => {
    const file = newFile();
    const backend = await open({ file });
    const runs = await Promise.all([backend.submit(echo, 1), backend.submit(echo, 2)]);
    const outputs = runs.map((run) => run.output({ timeout: "10s" }).catch((error: { code: string }) => error.code));
    const other = openConnection(file, 5_000);
    other.exec("DELETE FROM runs");
    expect(await Promise.all(outputs)).toEqual(["RUN_NOT_FOUND", "RUN_NOT_FOUND"]);
    other.close();
  });

  test("when somebody settles it by hand, without a word", async () => {
    const file = newFile();
    const backend = await open({ file });
    const run = await backend.submit(echo, 1);
    const output = run.output({ timeout: "10s" });
    const other = openConnection(file, 5_000);
    other.exec(`UPDATE runs SET state = 4, status = 'completed', output = '"by hand"', finished_at = ${Date.now()}`);
    expect(await output).toBe("by hand");
    other.close();
  });

  test("what is no run is not found by any call", async () => {
    const backend = await open();
    const calls = [
      () => backend.getResult("none"),
      () => backend.getRun("none"),
      () => backend.cancel("none"),
      () => backend.signal("none", "go"),
    ];
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
  });
});

test("options in a URL are checked as everywhere: unknown ones, doubles, bad values, a broken path", () => {
  const at =
    (url: string, options?: unknown): (() => unknown) =>
    () =>
      createAdapter({ env: {}, log: silentLogger, root: folder, url, options });
  expect(at("sqlite:a.db?retentoin=1d")).toThrow(
    /"retentoin", which there is not; there are file, synchronous, lease, retention, lockTimeout/,
  );
  expect(at("sqlite:a.db?lease=1s&lease=2s")).toThrow(/gives lease twice/);
  expect(at("sqlite:a.db?file=b.db")).toThrow(/gives file twice/);
  expect(at("sqlite:a.db?__proto__=1")).toThrow(/"__proto__", which there is not/);
  expect(at("sqlite:a.db?lease=soon")).toThrow(/Option lease of the sqlite backend is "soon"/);
  expect(at("sqlite:a.db?synchronous=off")).toThrow(/synchronous/);
  expect(at("sqlite:a%b.db")).toThrow(/"%" that is no escape/);
  expect(at("sqlite:a.db", 42)).toThrow(/Options of the sqlite backend are no object/);
  expect(at("sqlite:a.db", [])).toThrow(/give one with file/);
  expect(at("sqlite:a.db", { retentoin: "1d" })).toThrow(/retentoin/);
});
