import {
  getBackend,
  readConfiguration,
  workerName,
  type Configuration,
  type LoadedModule,
  type Logger,
  type Worker,
} from "@task-backend/core";
import { parseDuration, type Duration } from "@task-backend/core/adapter";
import { announce, definitionsOf } from "./announce.ts";
import { CommandError, listOf, type Arguments } from "./arguments.ts";
import { serveHealth } from "./health.ts";
import { logAttempt } from "./log.ts";
import { unlessAborted, within, type StopSignals } from "./signals.ts";

const DEFAULT_GRACE: Duration = "30s";
/** How long a stop may take beyond the grace period: the engine may be slow to release runs. */
const RELEASE_MS = 10_000;
/** How long a stop may take after the second signal. */
const RELEASE_NOW_MS = 2_000;

/** The functions that close what has been opened. */
type Open = (() => unknown)[];

interface Serving {
  readonly worker: Worker;
  readonly graceMs: number;
}

/**
 * Starts a worker and runs it until a signal comes.
 * @returns the exit code: 0 stopped, 1 when runs could not be released in time
 */
export async function serve(given: Arguments, env: NodeJS.ProcessEnv, log: Logger, signals: StopSignals): Promise<0 | 1> {
  const open: Open = [];
  const starting = start(given, env, log, signals, open);
  const serving = await unlessAborted(signals.stop, starting).catch(async (error: unknown) => {
    await closeAll(open).catch(() => {});
    throw error;
  });
  if (!serving) {
    log.info(`${signals.stop.reason}: stopped before the worker had started`);
    // Closes what a start that is still under way opens, as far as this process lives on.
    const closeRest = (): Promise<void> => closeAll(open);
    starting.then(closeRest, closeRest).catch(() => {});
    await within(closeAll(open), { limitMs: RELEASE_NOW_MS, signal: signals.now, afterSignalMs: 0 });
    return 0;
  }
  await unlessAborted(signals.stop, new Promise<never>(() => {}));
  log.info(`${signals.stop.reason}: stopping, running attempts may finish (once more to stop at once)`);
  const bounds = { limitMs: serving.graceMs + RELEASE_MS, signal: signals.now, afterSignalMs: RELEASE_NOW_MS };
  if (await within(stop(serving.worker, open, log, signals), bounds)) {
    log.info("Stopped");
    return 0;
  }
  log.error("Stopped before every run was released; the others of them come back after the engine's recovery time");
  return 1;
}

async function stop(worker: Worker, open: Open, log: Logger, { now }: StopSignals): Promise<void> {
  const atOnce = unlessAborted(now, new Promise<never>(() => {})).then(() => {
    log.info(`${now.reason}: stopping at once`);
    return worker.stop({ grace: 0 });
  });
  try {
    await Promise.race([worker.stop(), atOnce]);
  } finally {
    await closeAll(open);
  }
}

/** Closes everything, the last one first, even when one of them fails. */
async function closeAll(open: Open): Promise<void> {
  const failures: unknown[] = [];
  for (let close = open.pop(); close; close = open.pop()) {
    try {
      await close();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

async function start(given: Arguments, env: NodeJS.ProcessEnv, log: Logger, signals: StopSignals, open: Open): Promise<Serving> {
  const configuration = await readConfiguration({ config: given.config }, env, process.cwd());
  const modules = given.tasks ?? configuration.worker?.modules;
  if (!modules?.length)
    throw new CommandError("no tasks: add --tasks ./tasks.ts (paths, globs or packages), or worker.modules to the configuration file");
  const grace = given.grace ?? configuration.worker?.grace ?? DEFAULT_GRACE;
  const graceMs = parseDuration(grace, "The grace of a worker");
  const concurrency = given.concurrency ?? configuration.worker?.concurrency;

  // The health server starts before the connection: an orchestrator may ask while a slow engine connects.
  let worker: Worker | undefined;
  const ready = (): boolean => !signals.stop.aborted && worker !== undefined && worker.healthy();
  const health = given.healthPort === undefined ? undefined : await serveHealth(given.healthPort, ready);
  if (health) open.push(() => health.close());

  // The backend is shared: getBackend() in a handler returns the backend of this worker.
  const backend = await getBackend({ log, shared: true, ...(given.config !== undefined && { config: given.config }) });
  const close = backend.close.bind(backend);
  open.push(close);
  backend.close = () => {
    log.debug("A task called close() on the backend of its worker; it is closed when the worker stops");
    return Promise.resolve();
  };

  const loaded = await backend.load(modules);
  const queues = queuesOf(given, configuration, loaded, env);
  worker = await backend.startWorker({
    queues,
    name: given.name ?? workerName(queues),
    grace,
    onAttempt: (event) => logAttempt(log, event),
    ...(concurrency !== undefined && { concurrency }),
  });
  announce(log, backend, worker, definitionsOf(loaded, configuration.tasks), health?.port);
  return { worker, graceMs };
}

function queuesOf(
  given: Arguments,
  { worker, tasks }: Configuration,
  loaded: readonly LoadedModule[],
  env: NodeJS.ProcessEnv,
): readonly string[] {
  const production = env["NODE_ENV"] === "production";
  const named = listOf(env["TASK_QUEUES"] ?? "");
  const queues = given.queues ?? (production ? [] : named.length > 0 ? named : (worker?.queues ?? []));
  if (queues.length > 0) return queues;
  const known = [...new Set(definitionsOf(loaded, tasks).map((definition) => definition.queue))].join(",");
  throw new CommandError(
    `no queues: add --queues ${known || "a,b"}${production ? " (with NODE_ENV=production the flag is required)" : ", or set TASK_QUEUES"}`,
  );
}
