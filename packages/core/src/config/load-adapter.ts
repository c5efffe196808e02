import type { Configuration } from "./configuration.ts";
import { parseDuration } from "../values/duration.ts";
import { ConfigurationError } from "../values/errors.ts";
import { importModule, MissingModule } from "./load-module.ts";
import type { Logger } from "../values/log.ts";
import type { Adapter, AdapterContext, CreateAdapter } from "../port/port.ts";

/** The types that have a short name, and the package of each. */
const KNOWN: Readonly<Record<string, string>> = {
  sqlite: "@task-backend/sqlite",
  bullmq: "@task-backend/bullmq",
  temporal: "@task-backend/temporal",
  hatchet: "@task-backend/hatchet",
};

/**
 * Loads the adapter package that the configuration names and makes its adapter.
 * @throws ConfigurationError with the `npm install` line when the package is not there
 */
export async function loadAdapter(configuration: Configuration, env: AdapterContext["env"], log: Logger): Promise<Adapter> {
  const { type, typeFrom, root, url, options, retention } = configuration;
  const name = Object.hasOwn(KNOWN, type) ? (KNOWN[type] as string) : type;
  const loaded = await load(name, type, typeFrom, root);
  const createAdapter = loaded["createAdapter"];
  if (typeof createAdapter !== "function") {
    throw new ConfigurationError(`"${type}" (from ${typeFrom}) is not a task backend: ${name} exports no createAdapter. ${knownTypes()}`);
  }
  return (createAdapter as CreateAdapter)({
    root,
    env,
    log,
    ...(url !== undefined && { url }),
    ...(options !== undefined && { options }),
    ...(retention !== undefined && { retentionMs: parseDuration(retention, "retention") }),
  });
}

async function load(name: string, type: string, typeFrom: string, root: string): Promise<Record<string, unknown>> {
  try {
    return await importModule(name, root);
  } catch (cause) {
    if (!(cause instanceof MissingModule)) {
      throw new ConfigurationError(`Task backend "${type}" (from ${typeFrom}) failed to load: ${(cause as Error).message}`, { cause });
    }
    const remedy = `npm install ${name}`;
    throw new ConfigurationError(
      Object.hasOwn(KNOWN, type)
        ? `Task backend "${type}" (from ${typeFrom}) needs a package that is not installed: ${remedy}`
        : `Unknown task backend "${type}" (from ${typeFrom}). ${knownTypes()} If it is an adapter package of someone else: ${remedy}`,
      { cause },
    );
  }
}

function knownTypes(): string {
  return `The types are ${Object.keys(KNOWN).join(", ")}, or the name of an adapter package.`;
}
