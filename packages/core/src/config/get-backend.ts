import { createBackend, type BackendOptions, type TaskBackend } from "../submit/backend.ts";
import { checkLogger, checkOptions } from "../define/checks.ts";
import { ConfigurationError, InvalidArgumentError } from "../values/errors.ts";
import { show } from "../values/show.ts";
import { guardedLogger, stderrLogger } from "../values/log.ts";
import { readConfiguration, type ConfigurationInput } from "./configuration.ts";
import { loadAdapter } from "./load-adapter.ts";
import { withoutSecrets } from "./redact.ts";

/** The options of `getBackend`. Each goes before its variable, and the variable before the configuration file. */
export interface GetBackendOptions extends BackendOptions, Pick<ConfigurationInput, "config"> {
  /** Goes before `TASK_BACKEND_TYPE`: sqlite, bullmq, temporal, hatchet, or the name of an adapter package. */
  type?: string;
  /** Goes before `TASK_BACKEND_URL`. */
  url?: string;
  /** The adapter's own options. */
  options?: unknown;
  /**
   * Makes the new backend the one that `getBackend()` without arguments returns in this process, until it is closed. Refused
   * while there is another. Default false.
   */
  shared?: boolean;
}

const OPTIONS = ["type", "url", "options", "retention", "tasks", "config", "callTimeout", "log", "shared"];
const SHARED = Symbol.for("task-backend.shared-backend");
/** The process has one shared backend, whichever copy of the package made it. */
const holder = globalThis as { [SHARED]?: Promise<TaskBackend> | undefined };

/**
 * The backend that the configuration names. Without arguments it is the shared one of this process, until it is closed; with
 * options it is a new one.
 * @throws ConfigurationError, BackendUnavailableError, UnsupportedCapabilityError
 * @example
 * const backend = await getBackend();
 * const run = await backend.submit(resize, { url, width: 320 });
 */
export async function getBackend(options?: GetBackendOptions): Promise<TaskBackend> {
  if (!options) return (holder[SHARED] ??= share({}));
  checkOptions(options, OPTIONS, "The options of getBackend", InvalidArgumentError);
  checkLogger(options.log);
  if (options.shared !== undefined && typeof options.shared !== "boolean")
    throw new InvalidArgumentError(`The option shared of getBackend is ${show(options.shared)}; give true or false.`);
  if (options.shared !== true) return connect(options, () => {});
  if (holder[SHARED]) {
    throw new ConfigurationError(
      "getBackend({ shared: true }) was called while this process has a shared backend; call it first, or close that one.",
    );
  }
  return (holder[SHARED] = share(options));
}

/** Makes the shared backend. Its place is free again when it cannot connect and when it is closed. */
function share(options: GetBackendOptions): Promise<TaskBackend> {
  const free = (): void => {
    if (holder[SHARED] === sharing) holder[SHARED] = undefined;
  };
  const sharing: Promise<TaskBackend> = connect(options, free).catch((error: unknown) => {
    free();
    throw error;
  });
  return sharing;
}

async function connect(options: GetBackendOptions, onClose: () => void): Promise<TaskBackend> {
  const { callTimeout } = options;
  const log = guardedLogger(options.log ?? stderrLogger());
  const configuration = await readConfiguration(options, process.env, process.cwd());
  if (configuration.typeFrom === "the default") log.info("TASK_BACKEND_TYPE is not set: using sqlite");
  const { retention, tasks, url } = configuration;
  const own: BackendOptions = {
    log,
    ...(callTimeout !== undefined && { callTimeout }),
    ...(retention !== undefined && { retention }),
    ...(tasks && { tasks }),
  };
  try {
    return await createBackend(await loadAdapter(configuration, process.env, log), own, onClose);
  } catch (error) {
    throw withoutSecrets(error, url);
  }
}
