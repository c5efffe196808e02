import { createBackend, type BackendOptions, type TaskBackend } from "../submit/backend.ts";
import { checkLogger, checkOptions } from "../define/checks.ts";
import { InvalidArgumentError } from "../values/errors.ts";
import { readConfiguration, type ConfigurationInput } from "./configuration.ts";
import { loadAdapter } from "./load-adapter.ts";
import { guardedLogger, stderrLogger } from "../values/log.ts";

/** What `getBackend` takes; each is over its variable, and that over the configuration file. */
export interface GetBackendOptions extends BackendOptions, Pick<ConfigurationInput, "config"> {
  /** Over `TASK_BACKEND_TYPE`: sqlite, bullmq, temporal, hatchet, or the name of an adapter package. */
  type?: string;
  /** Over `TASK_BACKEND_URL`. */
  url?: string;
  /** The adapter's own options. */
  options?: unknown;
}

const SHARED = Symbol.for("task-backend.shared-backend");
const shared = globalThis as { [SHARED]?: Promise<TaskBackend> | undefined };

/**
 * The backend that the configuration names. Without arguments it is the one of this process, made once and shared
 * until it is closed; with options it is a new one.
 * @throws ConfigurationError, BackendUnavailableError, UnsupportedCapabilityError
 * @example
 * const backend = await getBackend();
 * const run = await backend.submit(resize, { url, width: 320 });
 */
export function getBackend(options?: GetBackendOptions): Promise<TaskBackend> {
  if (options) return connect(options, () => {});
  shared[SHARED] ??= connect({}, () => (shared[SHARED] = undefined)).catch((error: unknown) => {
    shared[SHARED] = undefined;
    throw error;
  });
  return shared[SHARED];
}

const OPTIONS = ["type", "url", "options", "config", "retention", "tasks", "callTimeout", "log"];

async function connect(options: GetBackendOptions, onClose: () => void): Promise<TaskBackend> {
  checkOptions(options, OPTIONS, "The options of getBackend", InvalidArgumentError);
  checkLogger(options.log);
  const { callTimeout } = options;
  const log = guardedLogger(options.log ?? stderrLogger());
  const configuration = await readConfiguration(options, process.env, process.cwd());
  if (configuration.typeFrom === "the default") log.info("TASK_BACKEND_TYPE is not set: using sqlite");
  const adapter = await loadAdapter(configuration, process.env, log);
  const { retention, tasks } = configuration;
  return createBackend(
    adapter,
    {
      log,
      ...(callTimeout !== undefined && { callTimeout }),
      ...(retention !== undefined && { retention }),
      ...(tasks && { tasks }),
    },
    onClose,
  );
}
