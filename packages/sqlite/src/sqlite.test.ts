import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync, openSync, writeSync, closeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  BackendClosedError,
  BackendUnavailableError,
  ConfigurationError,
  createBackend,
  defineTask,
  silentLogger,
  type BackendOptions,
  type TaskBackend,
} from "@task-backend/core";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { createAdapter, sqlite, type SqliteOptions } from "./index.ts";
import { Changes } from "./changes.ts";
import { Database } from "./database.ts";
import { openConnection } from "./driver.ts";
import { parseOptions } from "./options.ts";
import { insertRun } from "./runs.ts";
import { APPLICATION_ID } from "./schema.ts";
import { settleRun, SETTLEMENT_COLUMNS, type Settlement } from "./settling.ts";
import { Waits } from "./waits.ts";

const folder = mkdtempSync(join(tmpdir(), "sqlite-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newFile = (): string => join(folder, `${++files}.db`);

const echo = defineTask({ name: "echo", handler: async (value: unknown) => value });

async function open(options: SqliteOptions = {}, backendOptions: BackendOptions = {}): Promise<TaskBackend> {
  const backend = await createBackend(sqlite({ file: newFile(), ...options }), { log: silentLogger, ...backendOptions });
  onTestFinished(() => backend.close());
  return backend.register(echo);
}

async function failure(options: SqliteOptions): Promise<Error> {
  return Promise.resolve()
    .then(() => open(options))
    .then(
      () => new Error("it was opened"),
      (error: Error) => error,
    );
}

test("a folder that is missing, or that cannot hold a file, is named with the remedy", async () => {
  expect(await failure({ file: join(folder, "nowhere/tasks.db") })).toMatchObject({
    code: "CONFIGURATION",
    message: expect.stringMatching(/nowhere of the sqlite file does not exist; create it/) as string,
  });
  expect(await failure({ file: folder })).toMatchObject({
    code: "CONFIGURATION",
    message: expect.stringContaining("is a folder") as string,
  });
  for (const file of [join(folder, "x".repeat(300)), `${folder}/a\0b`]) {
    expect(await failure({ file })).toMatchObject({
      code: "CONFIGURATION",
      message: expect.stringMatching(/of the sqlite file cannot be used: (ENAMETOOLONG|it holds a null character)/) as string,
    });
  }
  expect(await failure({ file: "/proc/tasks.db" })).toMatchObject({
    code: "BACKEND_UNAVAILABLE",
    message: expect.stringMatching(/\/proc\/tasks\.db: it cannot be opened/) as string,
  });
});

test("a file that is not a database, or another application's, or a newer one, is refused untouched", async () => {
  const text = newFile();
  writeFileSync(text, "this is a letter, not a database ".repeat(100));
  expect((await failure({ file: text })).message).toMatch(/not an SQLite database/);
  expect(readFileSync(text, "utf8")).toMatch(/^this is a letter/);

  const foreign = newFile();
  const other = openConnection(foreign, 1_000);
  other.exec("CREATE TABLE customers (id INTEGER)");
  other.close();
  expect((await failure({ file: foreign })).message).toMatch(/belongs to another application/);

  const newer = newFile();
  const next = openConnection(newer, 1_000);
  next.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = 99`);
  next.close();
  expect((await failure({ file: newer })).message).toMatch(/newer @task-backend\/sqlite \(schema 99.*upgrade the package/);
});

test("a damaged file is told as such, not as an unknown run", async () => {
  const file = newFile();
  const backend = await createBackend(sqlite({ file }), { log: silentLogger });
  const runs = await backend.submitMany(Array.from({ length: 2_000 }, (_, n) => ({ task: echo, input: `${n} ${"x".repeat(200)}` })));
  await backend.close();
  rmSync(`${file}-wal`, { force: true });
  const size = statSync(file).size;
  const handle = openSync(file, "r+");
  for (let at = 8_192; at < size; at += 4_096) writeSync(handle, Buffer.alloc(512, 0xff), 0, 512, at);
  closeSync(handle);
  const error = await open({ file })
    .then((again) => again.getResult((runs[1_000] as { id: string }).id))
    .then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
  expect(error).toBeInstanceOf(BackendUnavailableError);
  expect((error as Error).message).toMatch(/damaged|not an SQLite database/);
});

test("a lock held for too long rejects within the time, and what was waiting goes through after a short one", async () => {
  const file = newFile();
  const backend = await open({ file, lockTimeout: "1s" });
  const lock = openConnection(file, 1_000);
  lock.exec("BEGIN IMMEDIATE");
  const startedAt = Date.now();
  await expect(backend.submit(echo, 1)).rejects.toThrow(/kept it locked for too long/);
  expect(Date.now() - startedAt).toBeLessThan(5_000);
  const waiting = backend.submit(echo, 2);
  setTimeout(() => lock.exec("COMMIT"), 100);
  expect((await (await waiting).result()).status).toBe("pending");
  lock.close();
});

test("a full disk refuses what does not fit, loses nothing, and goes on when there is room", async ({ skip }) => {
  const mount = join(folder, "small");
  mkdirSync(mount);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], { stdio: "ignore" });
  } catch {
    return skip("mounting a small tmpfs needs root");
  }
  try {
    const backend = await open({ file: join(mount, "tasks.db") });
    const accepted: string[] = [];
    let refusal: unknown;
    for (let n = 0; n < 500 && refusal === undefined; n++) {
      await backend.submit(echo, `${n} ${"x".repeat(20_000)}`).then(
        (run) => accepted.push(run.id),
        (error: unknown) => (refusal = error),
      );
    }
    expect(refusal).toBeInstanceOf(BackendUnavailableError);
    expect((refusal as Error).message).toMatch(/disk is full/);
    expect(accepted.length).toBeGreaterThan(10);
    execFileSync("mount", ["-o", "remount,size=64m", mount]);
    await backend.startWorker();
    for (const [n, id] of accepted.entries())
      expect(await (await backend.getRun<string>(id)).output({ timeout: "10s" })).toMatch(new RegExp(`^${n} x`));
    await backend.close();
  } finally {
    execFileSync("umount", ["-l", mount]);
  }
});

test("submits made at the same moment share a transaction", async () => {
  const file = newFile();
  const backend = await open({ file });
  const observer = openConnection(file, 1_000);
  const version = (): number => (observer.prepare("PRAGMA data_version").get() as { data_version: number }).data_version;
  const before = version();
  await Promise.all(Array.from({ length: 100 }, (_, n) => backend.submit(echo, n)));
  expect(version() - before).toBeLessThanOrEqual(3);
  expect(observer.prepare("SELECT count(*) AS count FROM runs").get()).toMatchObject({ count: 100 });
  observer.close();
});

test("one bad write in a shared transaction fails alone", async () => {
  const file = newFile();
  const backend = await open({ file });
  const other = openConnection(file, 1_000);
  other.exec(
    "CREATE TRIGGER refuse BEFORE INSERT ON runs WHEN NEW.name = 'refused' BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
  );
  other.close();
  const [good, bad, alsoGood] = await Promise.allSettled([
    backend.submit("echo", 1),
    backend.submit("refused", 2),
    backend.submit("echo", 3),
  ]);
  expect([good.status, bad.status, alsoGood.status]).toEqual(["fulfilled", "rejected", "fulfilled"]);
});

test("four processes submit and run at once, and nothing is lost or doubled", { timeout: 60_000 }, async () => {
  const file = newFile();
  const program = `
    const { createBackend, defineTask, silentLogger } = await import("@task-backend/core");
    const { sqlite } = await import("@task-backend/sqlite");
    const backend = await createBackend(sqlite({ file: ${JSON.stringify(file)} }), { log: silentLogger });
    const done = defineTask({ name: "done", handler: async (n) => n * 2 });
    backend.register(done);
    const worker = await backend.startWorker({ concurrency: 20 });
    const runs = await Promise.all(Array.from({ length: 300 }, (_, n) => backend.submit(done, n)));
    const outputs = await Promise.all(runs.map((run) => run.output({ timeout: "40s" })));
    if (outputs.some((output, n) => output !== n * 2)) throw new Error("a wrong output");
    await worker.stop();
    await backend.close();
  `;
  await Promise.all(
    Array.from({ length: 4 }, () =>
      promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program], { cwd: join(import.meta.dirname, "../../..") }),
    ),
  );
  const reader = openConnection(file, 1_000);
  expect(
    reader.prepare("SELECT count(*) AS runs, sum(attempts) AS attempts, sum(status = 'completed') AS completed FROM runs").get(),
  ).toMatchObject({ runs: 1_200, attempts: 1_200, completed: 1_200 });
  reader.close();
});

test("an attempt retried without delay is still the worker's own, and is cancelled like any other", async () => {
  const backend = await open();
  let attempts = 0;
  let reason: unknown;
  const again = defineTask({
    name: "again",
    retry: { attempts: 2, backoff: { delay: 0 } },
    handler: async (_: null, context) => {
      if (++attempts === 1) throw new Error("the first time");
      await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
      reason = context.signal.reason;
    },
  });
  backend.register(again);
  await backend.startWorker();
  const run = await backend.submit(again, null);
  await expect.poll(() => attempts).toBe(2);
  await run.cancel();
  await expect(run.output({ timeout: "5s" })).rejects.toMatchObject({ code: "TASK_CANCELLED" });
  expect(reason).toMatchObject({ code: "TASK_CANCELLED" });
});

test("many processes may make the same file at the same moment", { timeout: 60_000 }, async () => {
  const file = newFile();
  const program = `
    const { createBackend, silentLogger } = await import("@task-backend/core");
    const { sqlite } = await import("@task-backend/sqlite");
    while (Date.now() < Number(process.argv[1])) {}
    const backend = await createBackend(sqlite({ file: ${JSON.stringify(file)} }), { log: silentLogger });
    await backend.submit("made", 1);
    await backend.close();
  `;
  const at = String(Date.now() + 1_500);
  await Promise.all(
    Array.from({ length: 8 }, () =>
      promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program, at], { cwd: join(import.meta.dirname, "../../..") }),
    ),
  );
  const reader = openConnection(file, 1_000);
  expect(reader.prepare("SELECT count(*) AS count FROM runs").get()).toMatchObject({ count: 8 });
  reader.close();
});

test("a run that settles between the two reads of a wait is not missed", async () => {
  const database = await Database.open(parseOptions({ file: newFile() }, folder));
  onTestFinished(() => database.close());
  const request = { kind: "task", name: "echo", queue: "q", input: null, headers: {}, priority: "normal" } as const;
  const { id } = await database.writer.write(() => insertRun(database, request, 1_000) as { id: string });
  const unsettled = { id, name: "echo", queue: "q", status: "pending", attempts: 0, submittedAtMs: 0 } as const;
  const settled = { ...unsettled, status: "completed", output: "in between", finishedAtMs: 1 } as const;
  let reads = 0;
  const waits = new Waits(database, new Changes(database, () => {}), async () => {
    if (++reads > 1) return settled;
    database.run("BEGIN");
    const row = database.get<Settlement>(`SELECT ${SETTLEMENT_COLUMNS} FROM runs WHERE id = ?`, id) as Settlement;
    settleRun(database, row, { status: "completed", output: "in between" });
    database.run("COMMIT");
    return unsettled;
  });
  const record = waits.wait(id, undefined);
  waits.check();
  expect(await record).toMatchObject({ status: "completed", output: "in between" });
});

test("the retention leaves nothing behind", async () => {
  const file = newFile();
  const backend = await open({ file, retention: 300 });
  const runs = await backend.submitMany(Array.from({ length: 600 }, (_, n) => ({ task: echo, input: n })));
  // The waits begin before the runs settle: if the machine is busy for longer than the retention, the records are gone.
  const outputs = Promise.all(runs.map((run) => run.output()));
  await backend.startWorker();
  await outputs;
  const reader = openConnection(file, 1_000);
  await expect
    .poll(
      () =>
        (
          reader.prepare("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM settlements) AS left_behind").get() as {
            left_behind: number;
          }
        ).left_behind,
      { timeout: 10_000 },
    )
    .toBe(0);
  reader.close();
});

test("a memory database serves one process, with workers and waits", async () => {
  const backend = await open({ file: ":memory:" });
  await backend.startWorker();
  expect(await (await backend.submit(echo, "in memory")).output({ timeout: "5s" })).toBe("in memory");
});

test("close() leaves nothing running and rejects what waits", async () => {
  const file = newFile();
  const backend = await open({ file });
  const waiting = (await backend.submit(echo, 1)).output();
  const rejected = expect(waiting).rejects.toBeInstanceOf(BackendClosedError);
  await backend.close();
  await rejected;
  const program = `
    const { createBackend, silentLogger } = await import("@task-backend/core");
    const { sqlite } = await import("@task-backend/sqlite");
    const backend = await createBackend(sqlite({ file: ${JSON.stringify(file)} }), { log: silentLogger });
    await backend.submit("echo", 2);
    // Not closed: an idle backend does not keep the process either.
  `;
  await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: join(import.meta.dirname, "../../.."),
    timeout: 10_000,
  });
});

test("URLs, options and the default file", async () => {
  const context = { env: {}, log: silentLogger, root: folder };
  expect(() => createAdapter({ ...context, url: "redis://user:secret@host" })).toThrow(ConfigurationError);
  expect(() => createAdapter({ ...context, url: "redis://user:secret@host" })).not.toThrow(/secret/);
  expect(() => createAdapter({ ...context, options: { fil: "x" } })).toThrow(/They are file, synchronous/);
  expect(() => sqlite({ lease: "soon" as never })).toThrow(/Option lease of the sqlite backend is "soon"/);
  const adapter = createAdapter({ ...context, url: "sqlite:./by-url.db?lease=5s" });
  expect((await adapter.connect(AbortSignal.timeout(5_000))).where).toBe(join(folder, "by-url.db"));
  await adapter.close();
  const byDefault = createAdapter(context);
  expect((await byDefault.connect(AbortSignal.timeout(5_000))).where).toBe(join(folder, ".task-backend/tasks.db"));
  await byDefault.close();
  expect(existsSync(join(folder, ".task-backend/.gitignore"))).toBe(true);
});
