import type { Configuration } from "./configuration.ts";
import { parseDuration } from "../values/duration.ts";
import { ConfigurationError } from "../values/errors.ts";
import { didYouMean } from "../define/checks.ts";
import { whyOf } from "./load-failure.ts";
import { importModule, MissingModule } from "./load-module.ts";
import { redactUrl } from "./redact.ts";
import type { Logger } from "../values/log.ts";
import type { Adapter, AdapterContext, CreateAdapter } from "../port/port.ts";

/** The package of each type that has a short name. */
const KNOWN: Readonly<Record<string, string>> = {
  sqlite: "@task-backend/sqlite",
  bullmq: "@task-backend/bullmq",
  temporal: "@task-backend/temporal",
  hatchet: "@task-backend/hatchet",
};
/** Other names that people use for an engine, and its name here. */
const CALLED: Readonly<Record<string, string>> = {
  redis: "bullmq",
  rediss: "bullmq",
  postgres: "bullmq",
  postgresql: "bullmq",
  libsql: "sqlite",
};

/**
 * Loads the adapter package that the configuration names, and creates its adapter.
 * @throws ConfigurationError with the `npm install` line when the package of a known type is not there
 */
export async function loadAdapter(configuration: Configuration, env: AdapterContext["env"], log: Logger): Promise<Adapter> {
  const { type, typeFrom, root, url, options, retention } = configuration;
  if (type.includes("://")) {
    throw new ConfigurationError(
      `${typeFrom} names the type of task backend, and it is a URL (${redactUrl(type)}). ${typeNames()} The URL belongs in TASK_BACKEND_URL.`,
    );
  }
  const name = Object.hasOwn(KNOWN, type) ? (KNOWN[type] as string) : type;
  const loaded = await load(name, configuration);
  const createAdapter = loaded["createAdapter"] ?? (loaded["default"] as Record<string, unknown> | undefined)?.["createAdapter"];
  if (typeof createAdapter !== "function") {
    throw new ConfigurationError(
      `"${type}" (from ${typeFrom}) is not a task backend: ${name} exports no createAdapter.${suggestion(type)} ${typeNames()}`,
    );
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

async function load(name: string, { type, typeFrom, root }: Configuration): Promise<Record<string, unknown>> {
  try {
    return await importModule(name, root);
  } catch (cause) {
    if (!(cause instanceof MissingModule)) {
      throw new ConfigurationError(`Task backend "${type}" (from ${typeFrom}) failed to load: ${whyOf(cause)}`, { cause });
    }
    throw new ConfigurationError(
      Object.hasOwn(KNOWN, type)
        ? `Task backend "${type}" (from ${typeFrom}) needs a package that is not installed: npm install ${name}`
        : // No advice to install: a package of that name may be a stranger's.
          `Unknown task backend "${type}" (from ${typeFrom}).${suggestion(type)} ${typeNames()} Nothing of that name is installed in ${root}.`,
      { cause },
    );
  }
}

function suggestion(type: string): string {
  const word = type.toLowerCase();
  const called = Object.hasOwn(CALLED, word) ? CALLED[word] : undefined;
  return called === undefined ? didYouMean(type, Object.entries(KNOWN).flat()) : ` Did you mean "${called}"?`;
}

function typeNames(): string {
  return `The types are ${Object.keys(KNOWN).join(", ")}; any other name is an adapter that the application has installed, or the path of one that starts with "./".`;
}
