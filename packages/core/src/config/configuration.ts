import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { loadConfig } from "c12";
import { z } from "zod";
import type { TaskPolicy } from "../define/definition.ts";
import type { Duration } from "../values/duration.ts";
import { ConfigurationError } from "../values/errors.ts";

const duration = z.union([z.number().nonnegative(), z.templateLiteral([z.number(), z.enum(["ms", "s", "m", "h", "d"])])]);

const policy = z.strictObject({
  queue: z.string().optional(),
  priority: z.enum(["low", "normal", "high", "critical", "urgent"]).optional(),
  timeout: duration.optional(),
  retry: z
    .strictObject({
      attempts: z.number().int().positive().optional(),
      backoff: z
        .strictObject({
          type: z.enum(["exponential", "fixed"]).optional(),
          delay: duration.optional(),
          factor: z.number().min(1).optional(),
          maxDelay: duration.optional(),
          jitter: z.boolean().optional(),
        })
        .optional(),
    })
    .optional(),
});

const file = z.strictObject({
  type: z.string().min(1).optional(),
  url: z.string().min(1).optional(),
  options: z.unknown().optional(),
  retention: duration.optional(),
  tasks: z.record(z.string(), policy).optional(),
  worker: z
    .strictObject({
      queues: z.array(z.string()).optional(),
      modules: z.array(z.string()).optional(),
      concurrency: z.number().int().positive().optional(),
      grace: duration.optional(),
    })
    .optional(),
});

/** What `task-backend.config.{ts,js,mjs,json,yaml}` may hold. */
export interface ConfigFile {
  /** Like `TASK_BACKEND_TYPE`. */
  type?: string;
  /** Like `TASK_BACKEND_URL`. */
  url?: string;
  /** The adapter's own options. */
  options?: unknown;
  retention?: Duration;
  /** Policy by task name, over the definitions. */
  tasks?: Record<string, TaskPolicy>;
  /** Defaults of `task-backend-worker`. */
  worker?: { queues?: string[]; modules?: string[]; concurrency?: number; grace?: Duration };
}

/** Types a configuration file. @example export default defineConfig({ type: "sqlite", tasks: { resize: { timeout: "1m" } } }); */
export function defineConfig(config: ConfigFile): ConfigFile {
  return config;
}

/** The configuration of one backend, from every source, with its origin kept for messages. */
export interface Configuration extends Omit<ConfigFile, "type"> {
  readonly type: string;
  readonly typeFrom: string;
  /** The folder of the nearest package.json, or the working folder. */
  readonly root: string;
}

export interface ConfigurationInput {
  readonly type?: string | undefined;
  readonly url?: string | undefined;
  readonly options?: unknown;
  readonly retention?: Duration | undefined;
  readonly tasks?: Readonly<Record<string, TaskPolicy>> | undefined;
  /** Path of the configuration file; `false` reads none. Default: `task-backend.config.*` beside the nearest package.json. */
  readonly config?: string | false | undefined;
}

/**
 * Argument over environment over file. The one place where variables are read.
 * @throws ConfigurationError naming the variable or file, the value and the remedy
 */
export async function readConfiguration(input: ConfigurationInput, env: NodeJS.ProcessEnv, cwd: string): Promise<Configuration> {
  const root = findRoot(cwd);
  const { config, source } = await readFile(input.config, root, cwd);
  const [type, typeFrom] = pickType(input.type, env, config.type, source);
  const url = input.url ?? (env["TASK_BACKEND_URL"] || config.url);
  const retention = input.retention ?? config.retention;
  const options = merged(input.options, config.options);
  return {
    ...config,
    tasks: { ...config.tasks, ...input.tasks },
    type,
    typeFrom,
    root,
    ...(url && { url }),
    ...(retention !== undefined && { retention }),
    ...(options !== undefined && { options }),
  } as Configuration;
}

function pickType(
  argument: string | undefined,
  env: NodeJS.ProcessEnv,
  fromFile: string | undefined,
  source: string,
): [type: string, from: string] {
  if (argument) return [argument, "the option type"];
  const variable = env["TASK_BACKEND_TYPE"]?.trim();
  if (variable) return [variable, "TASK_BACKEND_TYPE"];
  if (fromFile) return [fromFile, source];
  if (env["NODE_ENV"] === "production") {
    throw new ConfigurationError(
      "TASK_BACKEND_TYPE is not set, and with NODE_ENV=production there is no default; set it to sqlite, bullmq, temporal, hatchet or the name of an adapter package.",
    );
  }
  return ["sqlite", "the default"];
}

function merged(argument: unknown, fromFile: unknown): unknown {
  if (typeof argument === "object" && argument !== null && typeof fromFile === "object" && fromFile !== null)
    return { ...fromFile, ...argument };
  return argument ?? fromFile;
}

async function readFile(
  path: string | false | undefined,
  root: string,
  cwd: string,
): Promise<{ config: z.infer<typeof file>; source: string }> {
  if (path === false) return { config: {}, source: "" };
  const named = path === undefined ? undefined : resolve(cwd, path);
  // A missing file is an empty configuration to the loader: one that was named must exist.
  if (named !== undefined && !existsSync(named)) {
    throw new ConfigurationError(`The configuration file ${named} does not exist; give the path of one, or leave the option out.`);
  }
  const source = named ?? join(root, "task-backend.config");
  let loaded: Awaited<ReturnType<typeof loadConfig>>;
  try {
    loaded = await loadConfig({
      name: "task-backend",
      cwd: named ? dirname(named) : root,
      ...(named && { configFile: named }),
      rcFile: false,
      globalRc: false,
      dotenv: false,
      packageJson: false,
    });
  } catch (cause) {
    throw new ConfigurationError(
      `The configuration file ${source} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
  const parsed = file.safeParse(loaded.config ?? {});
  if (parsed.success) return { config: parsed.data, source: loaded.configFile ?? source };
  const issue = parsed.error.issues[0];
  throw new ConfigurationError(
    `The configuration file ${loaded.configFile ?? source} does not fit: ${issue?.path.join(".") || "top level"}: ${issue?.message}.`,
  );
}

/** The folder of the nearest package.json at or above `from`, or `from` itself. */
function findRoot(from: string): string {
  for (let folder = from; ; folder = dirname(folder)) {
    if (existsSync(join(folder, "package.json"))) return folder;
    if (folder === dirname(folder)) return from;
  }
}
