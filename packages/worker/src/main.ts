import {
  BackendUnavailableError,
  getBackend,
  readConfiguration,
  TaskBackendError,
  workerName,
  type Configuration,
  type Definition,
  type Logger,
  type LoadedModule,
  type TaskBackend,
  type Worker,
} from "@task-backend/core";
import { listOf, parseArguments, Usage, type Arguments } from "./arguments.ts";
import { serveHealth } from "./health.ts";
import { createLog, logAttempt } from "./log.ts";

/**
 * The `task-backend-worker` command, until a signal stops it.
 * @returns the exit code: 0 stopped, 1 failed, 2 wrong usage
 */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<0 | 1 | 2> {
  let given: Arguments;
  try {
    given = parseArguments(argv);
  } catch (error) {
    if (!(error instanceof Usage)) throw error;
    (error.exitCode === 0 ? process.stdout : process.stderr).write(`${error.message}\n`);
    return error.exitCode;
  }
  const log = createLog(given.logLevel, given.json === true || !process.stdout.isTTY);
  try {
    await work(given, env, log);
    return 0;
  } catch (error) {
    if (!(error instanceof Usage) && !(error instanceof TaskBackendError)) throw error;
    process.stderr.write(`task-backend-worker: ${error.message}\n`);
    return error instanceof Usage || !(error instanceof BackendUnavailableError) ? 2 : 1;
  }
}

async function work(given: Arguments, env: NodeJS.ProcessEnv, log: Logger): Promise<void> {
  const configuration = await readConfiguration({ config: given.config }, env, process.cwd());
  const modules = given.tasks ?? configuration.worker?.modules;
  if (!modules?.length)
    throw new Usage("no tasks: add --tasks ./tasks.ts (paths, globs or packages), or worker.modules to the configuration file");

  const backend = await getBackend({ log, ...(given.config !== undefined && { config: given.config }) });
  try {
    const loaded = await backend.load(modules);
    const queues = queuesOf(given, configuration, loaded, env);
    const worker = await backend.startWorker({
      queues,
      name: given.name ?? workerName(queues),
      onAttempt: (event) => logAttempt(log, event),
      ...pick("concurrency", given.concurrency ?? configuration.worker?.concurrency),
      ...pick("grace", given.grace ?? configuration.worker?.grace),
    });
    const health = given.healthPort === undefined ? undefined : await serveHealth(given.healthPort, () => worker.healthy());
    announce(log, backend, worker, loaded, health?.port);
    await untilStopped(worker, log);
    health?.close();
  } finally {
    await backend.close();
  }
}

function queuesOf(given: Arguments, { worker }: Configuration, loaded: readonly LoadedModule[], env: NodeJS.ProcessEnv): readonly string[] {
  const production = env["NODE_ENV"] === "production";
  const queues = given.queues ?? (production ? [] : env["TASK_QUEUES"] ? listOf(env["TASK_QUEUES"]) : (worker?.queues ?? []));
  if (queues.length > 0) return queues;
  const known = [...new Set(definitionsOf(loaded).map((definition) => definition.queue))].join(",");
  throw new Usage(
    `no queues: add --queues ${known || "a,b"}${production ? " (with NODE_ENV=production the flag is required)" : ", or set TASK_QUEUES"}`,
  );
}

function announce(
  log: Logger,
  backend: TaskBackend,
  worker: Worker,
  loaded: readonly LoadedModule[],
  healthPort: number | undefined,
): void {
  const { engine, version, where } = backend.capabilities;
  const definitions = definitionsOf(loaded);
  const byQueue = Object.fromEntries(
    worker.queues.map((queue) => [
      queue,
      definitions.filter((definition) => definition.queue === queue).map((definition) => definition.name),
    ]),
  );
  log.info(`Worker ${worker.name} runs on ${engine} ${version} at ${where}`, {
    queues: byQueue,
    concurrency: worker.concurrency,
    ...(healthPort !== undefined && { healthPort }),
  });
  for (const [queue, tasks] of Object.entries(byQueue)) {
    if (tasks.length === 0) log.warn(`Queue "${queue}" has no task of its own here; only runs that were sent to it by name will be found`);
  }
  const unserved = definitions.filter((definition) => !worker.queues.includes(definition.queue));
  for (const { name, queue } of unserved) log.debug(`"${name}" is not served: its queue "${queue}" is not among --queues`);
}

/** The first SIGINT or SIGTERM stops within the grace period, the second at once. */
async function untilStopped(worker: Worker, log: Logger): Promise<void> {
  // A promise that some handler forgot must not take the other attempts down with it.
  const onRejection = (reason: unknown): void =>
    log.error(
      `A promise was rejected and nobody handled it: ${reason instanceof Error ? (reason.stack ?? reason.message) : String(reason)}`,
    );
  process.on("unhandledRejection", onRejection);
  await new Promise<void>((resolve, reject) => {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      signals++;
      log.info(
        signals === 1 ? `${signal}: stopping, running attempts may finish (once more to stop at once)` : `${signal}: stopping at once`,
      );
      worker.stop(signals === 1 ? {} : { grace: 0 }).then(resolve, reject);
    };
    process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  });
  log.info("Stopped");
}

function definitionsOf(loaded: readonly LoadedModule[]): Definition[] {
  return loaded.flatMap((module) => module.definitions);
}

function pick<K extends string, V>(key: K, value: V | undefined): { [key in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [key in K]: V });
}
