import type { TaskPolicy } from "../define/definition.ts";
import type { Duration } from "../values/duration.ts";
import { ConfigurationError } from "../values/errors.ts";
import { show } from "../values/show.ts";
import { readConfigFile, type ConfigFile } from "./config-file.ts";
import { folderWith } from "./load-failure.ts";

/** The configuration of one backend from all sources, with the origin of its values for messages. */
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
 * An argument goes before a variable, and a variable before the file. Variables are read only here; a blank one counts as unset.
 * @throws ConfigurationError naming the variable or file, the value and the remedy
 */
export async function readConfiguration(
  input: ConfigurationInput,
  env: Readonly<Record<string, string | undefined>>,
  cwd: string,
): Promise<Configuration> {
  for (const name of ["type", "url"] as const) checkText(input[name], name);
  if (input.config !== undefined && input.config !== false && typeof input.config !== "string")
    throw new ConfigurationError(`The option config is ${show(input.config)}; give the path of a file, or false for none.`);
  const root = folderWith("package.json", cwd);
  const { config, source } = await readConfigFile(input.config, root, cwd);
  const [type, typeFrom] = pickType(input.type, env, config.type, source);
  const url = input.url ?? (env["TASK_BACKEND_URL"]?.trim() || config.url);
  const retention = input.retention ?? config.retention;
  const options = merged(input.options, config.options);
  return {
    ...config,
    tasks: { ...config.tasks, ...input.tasks },
    type,
    typeFrom,
    root,
    ...(url !== undefined && { url }),
    ...(retention !== undefined && { retention }),
    ...(options !== undefined && { options }),
  } as Configuration;
}

/** Messages do not show the value: a URL may hold a password. */
function checkText(value: unknown, name: string): void {
  if (value === undefined || (typeof value === "string" && value.trim() !== "")) return;
  const what = typeof value === "string" ? "blank" : value === null ? "null" : `a ${typeof value}`;
  throw new ConfigurationError(`The option ${name} is ${what}; give text, or leave it out for the environment and the configuration file.`);
}

function pickType(
  argument: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
  fromFile: string | undefined,
  source: string,
): [type: string, from: string] {
  if (argument !== undefined) return [argument.trim(), "the option type"];
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
