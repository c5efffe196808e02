import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { ConfigurationError, optionMs, parseAdapterOptions, type AdapterContext, type Duration } from "@task-backend/core/adapter";
import { z } from "zod";

/** The options of `sqlite()`, of `options` in the configuration, and of the query of `sqlite:` URLs. */
export interface SqliteOptions {
  /** Path of the file, or `":memory:"` for one process. Default: `.task-backend/tasks.db` beside the nearest package.json. */
  file?: string;
  /** `"full"` survives a power cut at every commit; `"normal"` may then lose the latest commits, never the file. Default full. */
  synchronous?: "full" | "normal";
  /** After this long without a heartbeat, a worker counts as dead and others take its runs. Default 30 s. */
  lease?: Duration;
  /** How long settled runs are kept. Default 7 d. */
  retention?: Duration;
  /** How long a call waits for other processes to release the file. Default 10 s. */
  lockTimeout?: Duration;
}

/** `SqliteOptions` with every default filled in. */
export interface SqliteSettings {
  readonly file: string;
  readonly synchronous: "full" | "normal";
  readonly leaseMs: number;
  readonly retentionMs: number;
  readonly lockTimeoutMs: number;
}

const schema = z.strictObject({
  file: z.string().min(1).optional(),
  synchronous: z.enum(["full", "normal"]).optional(),
  lease: z.union([z.number(), z.string()]).optional(),
  retention: z.union([z.number(), z.string()]).optional(),
  lockTimeout: z.union([z.number(), z.string()]).optional(),
});

const NAMES = Object.keys(schema.shape).join(", ");

/** @throws ConfigurationError naming the option, InvalidArgumentError for a bad duration */
export function parseOptions(options: unknown, root: string): SqliteSettings {
  const given = parseAdapterOptions("sqlite", schema, options);
  const { file, synchronous = "full", lease = "30s", retention = "7d", lockTimeout = "10s" } = given;
  return {
    file: file === undefined ? defaultFile(root) : file === ":memory:" ? file : checkFile(resolve(root, file)),
    synchronous,
    leaseMs: Math.max(optionMs("sqlite", "lease", lease), 100),
    retentionMs: optionMs("sqlite", "retention", retention),
    lockTimeoutMs: optionMs("sqlite", "lockTimeout", lockTimeout),
  };
}

/**
 * Reads the settings from the arguments of `getBackend`: the URL goes before the options, and both before `retention`.
 * @throws ConfigurationError naming the option, InvalidArgumentError for a bad duration
 */
export function parseContext({ url, options, root, retentionMs }: AdapterContext): SqliteSettings {
  if (typeof (options ?? {}) !== "object" || Array.isArray(options))
    throw new ConfigurationError(`Options of the sqlite backend are no object; give one with ${NAMES}.`);
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return parseOptions({ ...retention, ...(options as object | undefined), ...(url !== undefined && parseUrl(url)) }, root);
}

/**
 * `sqlite:./tasks.db`, `sqlite::memory:`, `file:/var/lib/app/tasks.db`, or a bare path; options may follow as a query.
 * @throws ConfigurationError for the URL of another engine, an unknown option, or one given twice
 */
function parseUrl(url: string): Record<string, string> {
  const [, scheme, rest = ""] = /^([a-z][a-z0-9+.-]+):(.*)$/is.exec(url) ?? [undefined, "sqlite", url];
  if (scheme !== "sqlite" && scheme !== "file") {
    throw new ConfigurationError(
      `TASK_BACKEND_URL starts with "${scheme}:" and the sqlite backend takes sqlite:PATH; set TASK_BACKEND_TYPE to the engine of the URL, or the URL to a path.`,
    );
  }
  const at = rest.indexOf("?");
  const [path, query] = at < 0 ? [rest, ""] : [rest.slice(0, at), rest.slice(at + 1)];
  const given = pathOf(path.startsWith("//") ? path.slice(2) : path);
  const options: Record<string, string> = { ...(given && { file: given }) };
  for (const [name, value] of new URLSearchParams(query)) {
    if (!Object.hasOwn(schema.shape, name))
      throw new ConfigurationError(`The URL of the sqlite backend has the option "${name}", which there is not; there are ${NAMES}.`);
    if (Object.hasOwn(options, name)) throw new ConfigurationError(`The URL of the sqlite backend gives ${name} twice; give it once.`);
    options[name] = value;
  }
  return options;
}

function pathOf(path: string): string {
  try {
    return decodeURI(path);
  } catch (cause) {
    throw new ConfigurationError(`The path ${path} in the URL of the sqlite backend has a "%" that is no escape; write it as %25.`, {
      cause,
    });
  }
}

function defaultFile(root: string): string {
  const folder = join(root, ".task-backend");
  try {
    // The inputs of tasks concern nobody else on the machine.
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (!existsSync(join(folder, ".gitignore"))) writeFileSync(join(folder, ".gitignore"), "*\n");
  } catch (cause) {
    throw new ConfigurationError(
      `The folder ${folder} cannot be made (${(cause as Error).message}); set TASK_BACKEND_URL=sqlite:PATH to a file in a writable folder.`,
      { cause },
    );
  }
  return join(folder, "tasks.db");
}

function checkFile(file: string): string {
  if (!existsSync(dirname(file))) {
    throw new ConfigurationError(
      `The folder ${dirname(file)} of the sqlite file does not exist; create it, or set TASK_BACKEND_URL=sqlite:PATH to another.`,
    );
  }
  if (isFolder(file)) throw new ConfigurationError(`${file} is a folder; set TASK_BACKEND_URL=sqlite:PATH to a file in it.`);
  return file;
}

/** The system refuses some paths as such: a name that is too long, a null character, a folder that may not be entered. */
function isFolder(file: string): boolean {
  try {
    return statSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "ERR_INVALID_ARG_VALUE" ? "it holds a null character" : code;
    throw new ConfigurationError(`The path ${JSON.stringify(file)} of the sqlite file cannot be used: ${why}; give another.`, { cause });
  }
}
