import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend, defineTask, defineWorkflow, silentLogger, taskRef, type TaskBackend } from "@task-backend/core";
import { afterAll, describe, expect, onTestFinished, test } from "vitest";
import { openConnection, type Connection } from "./driver.ts";
import { sqlite } from "./index.ts";
import { LAST_MS, storedMs } from "./stored.ts";

/*
 * Rows that another program has written, and values that SQLite refuses: each costs its own run and no other.
 */

const folder = mkdtempSync(join(tmpdir(), "sqlite-damaged-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;

const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });
const flaky = defineTask({
  name: "flaky",
  retry: { attempts: 3, backoff: { delay: "1h", maxDelay: "1h" } },
  handler: async () => {
    throw new Error("again");
  },
});
const flow = defineWorkflow({
  name: "flow",
  version: "1",
  handler: async (wf) => {
    const first = await wf.run(echo, 1);
    await wf.waitForSignal("go");
    return first;
  },
});
const sleeper = defineWorkflow({ name: "sleeper", version: "1", handler: async (wf) => wf.sleep("1h") });

interface Ground {
  readonly backend: TaskBackend;
  /** Writes to the file as another program would. */
  readonly sql: Connection;
}

async function open(): Promise<Ground> {
  const file = join(folder, `${++files}.db`);
  const backend = await createBackend(sqlite({ file }), { log: silentLogger });
  const sql = openConnection(file, 5_000);
  onTestFinished(async () => {
    sql.close();
    await backend.close();
  });
  return { backend: backend.register(echo, flaky, flow, sleeper), sql };
}

/** Waits for a condition that comes true even on a busy machine. */
const eventually = (read: () => unknown): ReturnType<typeof expect.poll> => expect.poll(read, { timeout: 10_000 });

const failure = (run: { output: (options: { timeout: "10s" }) => Promise<unknown> }): Promise<unknown> =>
  run.output({ timeout: "10s" }).then(
    () => "completed",
    (error: { code?: string; failure?: { code: string } }) => error.failure?.code ?? error.code,
  );

async function expectCorrupt({ backend }: Ground, id: string): Promise<void> {
  const run = await backend.getRun(id);
  expect(await failure(run)).toBe("CORRUPT_RUN");
  expect(await run.result()).toMatchObject({ status: "failed", error: { code: "CORRUPT_RUN" } });
}

async function expectGoesOn({ backend }: Ground): Promise<void> {
  expect(await (await backend.submit(echo, "on")).output({ timeout: "10s" })).toBe("on");
  const next = await backend.submit(flow, null);
  await next.signal("go");
  expect(await next.output({ timeout: "10s" })).toBe(1);
}

describe("a row of a task that waits", () => {
  test.for([
    "input = '{bad'",
    "input = x'00ff'",
    "headers = 'null'",
    "headers = '[]'",
    `headers = '{"a":5}'`,
    "headers = '{'",
    "error = '{bad'",
    `error = '{"name":5}'`,
    "attempts = 'many'",
    "attempts = 9223372036854775807",
    "attempts = -5",
    "priority = 99",
    "priority = 9223372036854775807",
    "priority = 'high'",
    "started_at = 'yesterday'",
    "started_at = 9007199254740993",
    "lost_ticks = x'01'",
    "version = x'01'",
    "name = x'6563686f'",
    "parent = x'01', parent_n = 9007199254740993, attempts = 'x'",
  ])("%s", { timeout: 30_000 }, async (damage) => {
    const ground = await open();
    const bad = await ground.backend.submit(echo, "bad");
    const waiting = failure(bad);
    const good = await ground.backend.submit(echo, "good");
    ground.sql.exec(`UPDATE runs SET ${damage} WHERE id = '${bad.id}'`);
    await ground.backend.startWorker({ concurrency: 1 });
    expect(await good.output({ timeout: "10s" })).toBe("good");
    expect(await waiting).toBe("CORRUPT_RUN");
    await expectCorrupt(ground, bad.id);
    await expectGoesOn(ground);
  });

  test("a number beyond what can be read, as the key of the row", async () => {
    const ground = await open();
    const bad = await ground.backend.submit(echo, "first");
    ground.sql.exec(`UPDATE runs SET seq = 9223372036854775807 WHERE id = '${bad.id}'`);
    await ground.backend.startWorker();
    expect(await bad.output({ timeout: "10s" })).toBe("first");
    await expectGoesOn(ground);
  });
});

test.for(["run_at = 'soon'", "run_at = NULL", "run_at = 9223372036854775807", "run_at = x'01'"])(
  "a delayed run with %s holds up neither timers nor claims, and is settled at the next tidying",
  async (damage) => {
    const file = join(folder, `${++files}.db`);
    const first = await createBackend(sqlite({ file }), { log: silentLogger });
    const bad = await first.submit(echo, "bad", { delay: "1h" });
    const sql = openConnection(file, 5_000);
    sql.exec(`UPDATE runs SET ${damage} WHERE id = '${bad.id}'`);
    await first.register(echo).startWorker();
    const soon = await first.submit(echo, "soon", { delay: 300 });
    expect(await soon.output({ timeout: "10s" })).toBe("soon");
    await first.close();
    const again = await createBackend(sqlite({ file }), { log: silentLogger });
    expect(await again.getResult(bad.id)).toMatchObject({ status: "failed", error: { code: "CORRUPT_RUN" } });
    await again.close();
    sql.close();
  },
);

describe("what a settled run shows", () => {
  test.for([
    "output = '{bad'",
    "output = x'01'",
    "status = 'done'",
    "submitted_at = 'x'",
    "finished_at = NULL",
    "progress = '{'",
    "error = '[]'",
  ])("%s", async (damage) => {
    const ground = await open();
    await ground.backend.startWorker();
    const run = await ground.backend.submit(echo, 1);
    await run.output();
    ground.sql.exec(`UPDATE runs SET ${damage} WHERE id = '${run.id}'`);
    await expectCorrupt(ground, run.id);
    await expectGoesOn(ground);
  });
});

test("a damaged error of a run that retries, and a damaged progress of one that waits, are told when they are read", async () => {
  const ground = await open();
  const worker = await ground.backend.startWorker();
  const run = await ground.backend.submit(flaky, null);
  await eventually(async () => (await run.result()).status).toBe("retrying");
  ground.sql.exec(`UPDATE runs SET error = '{bad' WHERE id = '${run.id}'`);
  await expectCorrupt(ground, run.id);
  await worker.stop();
  const waits = await ground.backend.submit(echo, 1);
  ground.sql.exec(`UPDATE runs SET progress = '{bad' WHERE id = '${waits.id}'`);
  await expectCorrupt(ground, waits.id);
});

describe("a workflow", () => {
  test.for([
    "UPDATE journal SET entry = '{bad' WHERE position = 0",
    "UPDATE journal SET entry = 'null'",
    `UPDATE journal SET entry = '{"type":"settled","n":0,"atMs":1,"outcome":{}}' WHERE position = 1`,
    `UPDATE journal SET entry = '{"type":"odd"}'`,
    "DELETE FROM journal WHERE position = 0",
    "INSERT INTO journal (run, position, entry) SELECT run, max(position) + 1, '{bad' FROM journal",
    "UPDATE runs SET entries = 'x' WHERE name = 'flow'",
    "UPDATE runs SET seen = 9007199254740993 WHERE name = 'flow'",
    "UPDATE runs SET commands = -1 WHERE name = 'flow'",
    "UPDATE runs SET input = '{bad' WHERE name = 'flow'",
  ])("%s", async (damage) => {
    const ground = await open();
    // This worker ends, so that the next one must read the journal.
    const worker = await ground.backend.startWorker();
    const run = await ground.backend.submit(flow, null);
    await eventually(() => ground.sql.prepare("SELECT state FROM runs WHERE id = ?").get(run.id)).toMatchObject({ state: 3 });
    await worker.stop();
    ground.sql.exec(damage);
    // A worker that notices the damage itself settles the run at once.
    await run.signal("go").catch((error: { code: string }) => expect(error.code).toBe("RUN_SETTLED"));
    await ground.backend.startWorker();
    await expectCorrupt(ground, run.id);
    await expectGoesOn(ground);
  });

  test("is damaged while its step runs: the step completes", async () => {
    const ground = await open();
    let finish = (): void => {};
    const slow = defineTask({ name: "slow", handler: () => new Promise<number>((resolve) => (finish = () => resolve(7))) });
    const outer = defineWorkflow({ name: "outer", version: "1", handler: (wf) => wf.run(slow, null) });
    ground.backend.register(slow, outer);
    await ground.backend.startWorker();
    const run = await ground.backend.submit(outer, null);
    await eventually(async () => (await ground.backend.getResult(`${run.id}.0`).catch(() => undefined))?.status).toBe("running");
    ground.sql.exec(`UPDATE runs SET entries = 0 WHERE id = '${run.id}'`);
    finish();
    expect(await (await ground.backend.getRun(`${run.id}.0`)).output({ timeout: "10s" })).toBe(7);
    await expectCorrupt(ground, run.id);
    await expectGoesOn(ground);
  });

  test.for(["n = 9223372036854775807, due_at = 1", "due_at = 'later'", "due_at = x'01'", "n = 'x', due_at = 1"])(
    "has a timer with %s",
    async (damage) => {
      const ground = await open();
      await ground.backend.startWorker();
      const run = await ground.backend.submit(sleeper, null);
      await eventually(() => ground.sql.prepare("SELECT count(*) AS timers FROM timers").get()).toMatchObject({ timers: 1 });
      ground.sql.exec(`UPDATE timers SET ${damage}`);
      await expectGoesOn(ground);
      const delayed = await ground.backend.submit(echo, "soon", { delay: 200 });
      expect(await delayed.output({ timeout: "10s" })).toBe("soon");
      // Damage that no worker meets is found by the next backend that connects.
      const again = await createBackend(sqlite({ file: join(folder, `${files}.db`) }), { log: silentLogger });
      expect(await again.getResult(run.id)).toMatchObject({ status: "failed", error: { code: "CORRUPT_RUN" } });
      await again.close();
    },
  );

  test("one that is cancelled, signalled or asked for although it is damaged", async () => {
    const ground = await open();
    const run = await ground.backend.submit(flow, null);
    ground.sql.exec(`UPDATE runs SET parent_n = 9223372036854775807 WHERE id = '${run.id}'`);
    await run.cancel();
    await expectCorrupt(ground, run.id);
    await expect(run.signal("go")).rejects.toMatchObject({ code: "RUN_SETTLED" });
  });
});

test("moments are stored as whole numbers within the calendar, whatever arithmetic they come from", () => {
  expect([1e17, Infinity, -5, 1.5].map(storedMs)).toEqual([LAST_MS, LAST_MS, 0, 2]);
  expect(storedMs(NaN)).toBeLessThanOrEqual(Date.now());
});

test("workers whose rows are damaged count as lost, and stop no others", async () => {
  const ground = await open();
  ground.sql.exec(
    "INSERT INTO workers (id, name, renewals, lease_ms) VALUES ('odd', 'odd', 9223372036854775807, 'x'), ('b', 'b', x'01', -1)",
  );
  await ground.backend.startWorker();
  await expectGoesOn(ground);
  await eventually(() => ground.sql.prepare("SELECT count(*) AS n FROM workers WHERE id IN ('odd', 'b')").get()).toMatchObject({ n: 0 });
});

test("settlements that something else wrote keep nothing from being pruned", async () => {
  const file = join(folder, `${++files}.db`);
  const backend = await createBackend(sqlite({ file, retention: 300 }), { log: silentLogger });
  const sql = openConnection(file, 5_000);
  onTestFinished(async () => {
    sql.close();
    await backend.close();
  });
  sql.exec("INSERT INTO settlements (run, finished_at) VALUES (9223372036854775807, 1), ('x', 'y'), (3, 'y'), (4, 9223372036854775807)");
  await backend.register(echo).startWorker();
  await (await backend.submit(echo, 1)).output();
  await eventually(() => sql.prepare("SELECT count(*) AS runs FROM runs").get()).toMatchObject({ runs: 0 });
});

describe("what SQLite refuses for good", () => {
  const refuse = (when: string): string =>
    `CREATE TRIGGER refuse BEFORE UPDATE ON runs WHEN ${when} BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END`;

  test("an output is replaced by a small failure, and the slot goes on", async () => {
    const ground = await open();
    ground.sql.exec(refuse("NEW.output = '\"bad\"'"));
    await ground.backend.startWorker({ concurrency: 1 });
    const bad = await ground.backend.submit(echo, "bad");
    expect(await failure(bad)).toBe("STORE_REFUSED");
    expect((await bad.result()) as { error?: { message: string } }).toMatchObject({
      error: { message: expect.stringContaining("refused by a trigger") as string },
    });
    await expectGoesOn(ground);
  });

  test("a workflow's output likewise", async () => {
    const ground = await open();
    ground.sql.exec(refuse("NEW.output = '1' AND NEW.lane = 1"));
    await ground.backend.startWorker({ concurrency: 1 });
    const bad = await ground.backend.submit(flow, null);
    await bad.signal("go");
    expect(await failure(bad)).toBe("STORE_REFUSED");
    expect(await (await ground.backend.submit(echo, "on")).output({ timeout: "10s" })).toBe("on");
  });

  test("a run that nothing can be written of keeps no slot, and stop() ends", async () => {
    const ground = await open();
    const worker = await ground.backend.startWorker({ concurrency: 1 });
    ground.sql.exec(refuse("OLD.name = 'echo' AND OLD.input = '\"stuck\"' AND NEW.state = 4"));
    const stuck = await ground.backend.submit(echo, "stuck");
    await eventually(async () => (await stuck.result()).status).toBe("running");
    await expectGoesOn(ground);
    await worker.stop({ grace: 0 });
  });
});

describe("signals to what is a task", () => {
  test("are refused while it waits, when it was submitted by its definition", async () => {
    const { backend } = await open();
    const run = await backend.submit(echo, 1);
    await expect(run.signal("go")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  test("are kept while only its name is known, and refused once a worker has said that it is a task", async () => {
    const { backend } = await open();
    const other = await createBackend(sqlite({ file: join(folder, `${files}.db`) }), { log: silentLogger });
    onTestFinished(() => other.close());
    const early = await other.submit("flow", null);
    await early.signal("go");
    const task = await other.submit(taskRef({ name: "flaky" }), null);
    await task.signal("go");
    await backend.startWorker();
    expect(await early.output({ timeout: "10s" })).toBe(1);
    await eventually(async () => (await task.result()).status).toBe("retrying");
    await expect(task.signal("go")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  test("the version that a worker chose for a bare name stays, whichever worker goes on with it", async () => {
    const { backend, sql } = await open();
    const run = await (async () => {
      const other = await createBackend(sqlite({ file: join(folder, `${files}.db`) }), { log: silentLogger });
      onTestFinished(() => other.close());
      return other.submit("flow", null);
    })();
    const worker = await backend.startWorker();
    await eventually(() => sql.prepare("SELECT state FROM runs WHERE id = ?").get(run.id)).toMatchObject({ state: 3 });
    await worker.stop();
    expect(sql.prepare("SELECT version, definition, lane FROM runs WHERE id = ?").get(run.id)).toMatchObject({
      version: "1",
      definition: "flow@1",
      lane: 1,
    });
    await run.cancel();
    await backend.startWorker();
    await expect(run.output({ timeout: "10s" })).rejects.toMatchObject({ code: "TASK_CANCELLED" });
  });
});
