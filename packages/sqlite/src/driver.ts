import { createRequire } from "node:module";
import { ConfigurationError } from "@task-backend/core/adapter";

/*
 * This file chooses the SQLite of the process: Node's own module, or a package with the same interface. A process uses one of them
 * for all its files, because two copies of SQLite in a process do not see each other's locks.
 */

/** Integers are returned as numbers; beyond 2^53 the driver throws a RangeError instead. */
export type Value = string | number | null;

/** The part of a prepared statement of `node:sqlite` that is used here. */
export interface Statement {
  run(...values: Value[]): { readonly changes: number | bigint };
  get(...values: Value[]): unknown;
  all(...values: Value[]): unknown[];
}

/** The part of a connection of `node:sqlite` that is used here. */
export interface Connection {
  exec(sql: string): void;
  prepare(sql: string): Statement;
  close(): void;
}

interface Driver {
  readonly DatabaseSync: new (file: string, options: { readonly timeout: number }) => Connection;
}

/** Older versions can lose committed writes when several processes write and checkpoint (the WAL-reset bug). */
const OLDEST_SQLITE = "3.51.3";
const OWN = "node:sqlite";
const PACKAGE = "@photostructure/sqlite";
/** In older versions of Node the module is experimental and says so on standard error. */
const OWN_IS_STABLE_FROM = 24;

const require = createRequire(import.meta.url);
let chosen: Driver | undefined;

/**
 * Opens a file, or `:memory:`.
 * @param timeoutMs how long SQLite waits for a lock, which blocks the event loop
 * @throws ConfigurationError when this process has no SQLite that is new enough; else the error of SQLite
 */
export function openConnection(file: string, timeoutMs: number): Connection {
  chosen ??= choose();
  return new chosen.DatabaseSync(file, { timeout: timeoutMs });
}

function choose(): Driver {
  const own = Number(process.versions.node.split(".")[0]) >= OWN_IS_STABLE_FROM;
  const findings: string[] = [];
  for (const name of own ? [OWN, PACKAGE] : [PACKAGE, OWN]) {
    try {
      const driver = require(name) as Driver;
      const version = versionOf(driver);
      if (isNewEnough(version)) return driver;
      findings.push(`${name} has SQLite ${version}`);
    } catch (error) {
      findings.push(`${name} cannot be loaded (${(error as Error).message.split("\n", 1)[0]})`);
    }
  }
  throw new ConfigurationError(
    `The sqlite backend needs SQLite ${OLDEST_SQLITE} or newer, older ones can lose committed writes; in Node ${process.version} ${findings.join(", and ")}. ` +
      `Install ${PACKAGE} with optional dependencies allowed, or use the latest release of Node 24 or newer.`,
  );
}

function versionOf({ DatabaseSync }: Driver): string {
  const connection = new DatabaseSync(":memory:", { timeout: 0 });
  try {
    return sqliteVersion(connection);
  } finally {
    connection.close();
  }
}

/** The version of the SQLite behind a connection. */
export function sqliteVersion(connection: Pick<Connection, "prepare">): string {
  return (connection.prepare("SELECT sqlite_version() AS version").get() as { version: string }).version;
}

/** Whether SQLite of this version may write to a file that other processes write to. */
export function isNewEnough(version: string): boolean {
  const [given, oldest] = [version, OLDEST_SQLITE].map((text) => text.split(".").map(Number)) as [number[], number[]];
  for (const [index, least] of oldest.entries()) {
    const part = given[index] ?? 0;
    if (part !== least) return part > least;
  }
  return true;
}

/** SQLite's own messages, for calls that throw without its result code: `all` of the package does. */
const TEXTS: readonly (readonly [text: string, code: number])[] = [
  ["database is locked", 5],
  ["database table is locked", 6],
  ["attempt to write a readonly database", 8],
  ["disk I/O error", 10],
  ["database disk image is malformed", 11],
  ["database or disk is full", 13],
  ["unable to open database file", 14],
  ["string or blob too big", 18],
  ["constraint failed", 19],
  ["file is not a database", 26],
];

/** The primary result code of an SQLite error; undefined for any other error. */
export function resultCode(error: unknown): number | undefined {
  const { code, errcode, message } = error as { code?: unknown; errcode?: unknown; message?: unknown };
  if (typeof errcode === "number") return errcode & 0xff;
  if (code !== "ERR_SQLITE_ERROR") return undefined;
  return TEXTS.find(([text]) => String(message).includes(text))?.[1] ?? 1;
}

/** Whether a query met an integer that no JavaScript number can hold; `all` of the package says so only in its message. */
export function isBeyondNumbers(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return code === "ERR_OUT_OF_RANGE" || String(message).startsWith("Value is too large to be represented as a JavaScript number");
}
