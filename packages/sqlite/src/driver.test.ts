import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend, silentLogger } from "@task-backend/core";
import { afterAll, expect, test } from "vitest";
import { isBeyondNumbers, isNewEnough, openConnection, resultCode, sqliteVersion } from "./driver.ts";
import { createAdapter, sqlite } from "./index.ts";

const folder = mkdtempSync(join(tmpdir(), "sqlite-driver-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const thrown = (act: () => unknown): unknown => {
  try {
    act();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
};

test("the SQLite in use has the fix of the WAL-reset bug, and older ones are told apart", () => {
  const connection = openConnection(":memory:", 0);
  expect(isNewEnough(sqliteVersion(connection))).toBe(true);
  connection.close();
  expect(["3.45.1", "3.51.2", "3.9.9", "2.99.0"].filter(isNewEnough)).toEqual([]);
  expect(["3.51.3", "3.51.10", "3.53.0", "4.0.0"].filter((version) => !isNewEnough(version))).toEqual([]);
});

test("each call of the driver tells by a code what SQLite said", () => {
  const file = join(folder, "codes.db");
  const [one, other] = [openConnection(file, 0), openConnection(file, 0)];
  one.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE); INSERT INTO t VALUES (1, 'x')");
  const insert = (sql: string): ((call: "run" | "get" | "all") => unknown) => {
    const statement = other.prepare(sql);
    return (call) => resultCode(thrown(() => statement[call]()));
  };
  const constraint = insert("INSERT INTO t VALUES (2, 'x') RETURNING a");
  expect((["run", "get", "all"] as const).map(constraint)).toEqual([19, 19, 19]);
  one.exec("BEGIN IMMEDIATE");
  const busy = insert("INSERT INTO t VALUES (3, 'y') RETURNING a");
  expect((["run", "get", "all"] as const).map(busy)).toEqual([5, 5, 5]);
  one.exec("COMMIT");
  writeFileSync(join(folder, "letter.db"), "this is a letter ".repeat(500));
  const letter = openConnection(join(folder, "letter.db"), 0);
  expect(resultCode(thrown(() => letter.prepare("SELECT * FROM sqlite_schema").all()))).toBe(26);
  expect(resultCode(thrown(() => openConnection("/proc/none.db", 0)))).toBe(14);
  const large = other.prepare("SELECT 9223372036854775807 AS large");
  expect([thrown(() => large.get()), thrown(() => large.all())].map(isBeyondNumbers)).toEqual([true, true]);
  expect(resultCode(new Error("ours"))).toBeUndefined();
  for (const connection of [one, other, letter]) connection.close();
});

test("a statement gives what it is asked for last, by whichever call", () => {
  const connection = openConnection(":memory:", 0);
  const statement = connection.prepare("SELECT ? AS value");
  expect(statement.all("a")).toMatchObject([{ value: "a" }]);
  expect(statement.get("b")).toMatchObject({ value: "b" });
  expect(statement.all("c")).toMatchObject([{ value: "c" }]);
  connection.close();
});

test.skipIf(process.platform === "win32")("the file, its log and the default folder are for their owner alone", async () => {
  const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
  const file = join(folder, "private.db");
  const backend = await createBackend(sqlite({ file }), { log: silentLogger });
  await backend.submit("any", 1);
  expect([file, `${file}-wal`, `${file}-shm`, `${file}-bell`].map(mode)).toEqual(["600", "600", "600", "600"]);
  await backend.close();

  const adapter = createAdapter({ env: {}, log: silentLogger, root: folder });
  await adapter.connect(AbortSignal.timeout(10_000));
  expect([".task-backend", ".task-backend/tasks.db"].map((name) => mode(join(folder, name)))).toEqual(["700", "600"]);
  await adapter.close();
});

test("a file that is there keeps its mode", async () => {
  const file = join(folder, "shared.db");
  writeFileSync(file, "", { mode: 0o640 });
  await (await createBackend(sqlite({ file }), { log: silentLogger })).close();
  expect(statSync(file).mode & 0o777).toBe(0o640);
});
