import { readFileSync, statSync } from "node:fs";
import { extname, join, resolve } from "node:path";
import { z } from "zod";
import { checkPolicies } from "../define/definition-set.ts";
import type { TaskPolicy } from "../define/definition.ts";
import { parseDuration, type Duration } from "../values/duration.ts";
import { ConfigurationError } from "../values/errors.ts";
import { didYouMean } from "../define/checks.ts";
import { whyOf } from "./load-failure.ts";
import { importModule } from "./load-module.ts";

/** The durations that are allowed everywhere else; a refusal has the same words. */
const duration = z.custom<Duration>().superRefine((value, context) => {
  try {
    parseDuration(value, "the value");
  } catch (error) {
    context.addIssue({ code: "custom", message: whyOf(error) });
  }
});

/** The policies that code may give; a refusal has the same words. */
const policies = z.custom<Record<string, TaskPolicy>>().superRefine((value, context) => {
  try {
    checkPolicies(value);
  } catch (error) {
    context.addIssue({ code: "custom", message: whyOf(error) });
  }
});

const file = z.strictObject({
  type: z.string().trim().min(1).optional(),
  url: z.string().trim().min(1).optional(),
  options: z.unknown().optional(),
  retention: duration.optional(),
  tasks: policies.optional(),
  worker: z
    .strictObject({
      queues: z.array(z.string()).optional(),
      modules: z.array(z.string()).optional(),
      concurrency: z.number().int().positive().optional(),
      grace: duration.optional(),
    })
    .optional(),
});

/** The content of `task-backend.config.{ts,mts,js,mjs,cjs,json,yaml,yml}`. */
export interface ConfigFile {
  /** Like `TASK_BACKEND_TYPE`. */
  type?: string;
  /** Like `TASK_BACKEND_URL`. */
  url?: string;
  /** The adapter's own options. */
  options?: unknown;
  retention?: Duration;
  /** Policies by task name, which go before the definitions. */
  tasks?: Record<string, TaskPolicy>;
  /** Defaults of `task-backend-worker`. */
  worker?: { queues?: string[]; modules?: string[]; concurrency?: number; grace?: Duration };
}

/** Types a configuration file. @example export default defineConfig({ type: "sqlite", tasks: { resize: { timeout: "1m" } } }); */
export function defineConfig(config: ConfigFile): ConfigFile {
  return config;
}

const EXTENSIONS = ["ts", "mts", "cts", "js", "mjs", "cjs", "json", "yaml", "yml"];

/** The content of a configuration file, and its path for messages. */
export interface ReadFile {
  readonly config: z.infer<typeof file>;
  readonly source: string;
}

/**
 * Reads the named configuration file, or the one beside package.json.
 * @throws ConfigurationError naming the file, and the line or the key, without quoting it: it may hold a password
 */
export async function readConfigFile(path: string | false | undefined, root: string, cwd: string): Promise<ReadFile> {
  const source = path === false ? undefined : path === undefined ? findFile(root) : named(path, cwd);
  if (source === undefined) return { config: {}, source: "" };
  const parsed = file.safeParse((await contentOf(source, root)) ?? {});
  if (parsed.success) return { config: parsed.data, source };
  throw new ConfigurationError(`The configuration file ${source} does not fit: ${issueText(parsed.error)}`);
}

function named(path: string, cwd: string): string {
  const source = resolve(cwd, path);
  if (statSync(source, { throwIfNoEntry: false })?.isFile()) return source;
  throw new ConfigurationError(
    `The configuration file ${path.trim() === "" ? JSON.stringify(path) : source} does not exist; give the path of one, or leave the option out.`,
  );
}

function findFile(root: string): string | undefined {
  const found = EXTENSIONS.map((extension) => join(root, `task-backend.config.${extension}`)).filter((path) =>
    statSync(path, { throwIfNoEntry: false })?.isFile(),
  );
  if (found.length > 1)
    throw new ConfigurationError(
      `There are ${found.length} configuration files, ${found.join(" and ")}; keep one, or name it with config.`,
    );
  return found[0];
}

async function contentOf(source: string, root: string): Promise<unknown> {
  const extension = extname(source).slice(1).toLowerCase();
  if (!EXTENSIONS.includes(extension))
    throw new ConfigurationError(`The configuration file ${source} is of no known kind; its name must end in ${EXTENSIONS.join(", ")}.`);
  if (extension === "json") return parseJson(source);
  if (extension === "yaml" || extension === "yml") return parseYaml(source);
  let exports: Record<string, unknown>;
  try {
    exports = await importModule(source, root);
  } catch (cause) {
    throw new ConfigurationError(`The configuration file ${source} cannot be read: ${whyOf(cause)}`, { cause });
  }
  if ("default" in exports) return exports["default"];
  throw new ConfigurationError(`The configuration file ${source} has no default export; write "export default defineConfig({ … })".`);
}

/** Throws without a cause: the parser's error quotes the text. */
function parseJson(source: string): unknown {
  const text = readFileSync(source, "utf8").replace(/^\uFEFF/, "");
  const wrong = jsonError(text);
  if (wrong === undefined) return JSON.parse(text) as unknown;
  const before = text.slice(0, offsetOf(wrong, text)).split("\n");
  throw new ConfigurationError(
    `The configuration file ${source}:${before.length}:${(before.at(-1)?.length ?? 0) + 1} is no JSON from there on: look for a comma, quote or bracket.`,
  );
}

function jsonError(text: string): string | undefined {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return whyOf(error);
  }
}

/** The position of an error. Some errors have none: it is then the first character with which the text before it has the same error. */
function offsetOf(error: string, text: string): number {
  const [, position] = / at position (\d+)/.exec(error) ?? [];
  if (position !== undefined) return Number(position);
  let [from, to] = [0, text.length];
  while (from < to) {
    const middle = Math.floor((from + to) / 2);
    if (jsonError(text.slice(0, middle + 1))?.startsWith("Unexpected token")) to = middle;
    else from = middle + 1;
  }
  return from;
}

async function parseYaml(source: string): Promise<unknown> {
  const { LineCounter, parseDocument } = await import("yaml");
  const lines = new LineCounter();
  const document = parseDocument(readFileSync(source, "utf8"), { prettyErrors: false, lineCounter: lines });
  const [error] = document.errors;
  if (!error) return document.toJS();
  const { line, col } = lines.linePos(error.pos[0]);
  throw new ConfigurationError(`The configuration file ${source}:${line}:${col} is no YAML: ${whyOf(error)}.`);
}

/** The first issue of a schema, with the known keys when a key is unknown. */
function issueText(error: z.ZodError): string {
  const issue = error.issues[0] as z.core.$ZodIssue;
  const where = issue.path.join(".") || "top level";
  if (issue.code !== "unrecognized_keys") return `${where}: ${issue.message.replace(/\.$/, "")}.`;
  const key = issue.keys[0] ?? "";
  const known = Object.keys(issue.path.length === 0 ? file.shape : file.shape.worker.unwrap().shape);
  return `${where}: unknown key "${key}".${didYouMean(key, known)} The keys are ${known.join(", ")}.`;
}
