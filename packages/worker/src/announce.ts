import type { Configuration, LoadedModule, Logger, TaskBackend, Worker } from "@task-backend/core";

/** A task or workflow and the queue of its runs. */
interface Served {
  readonly name: string;
  readonly queue: string;
}

/** Writes the banner: what this worker serves and where, and which given definitions it does not serve. */
export function announce(
  log: Logger,
  backend: TaskBackend,
  worker: Worker,
  definitions: readonly Served[],
  healthPort: number | undefined,
): void {
  const { engine, version, where } = backend.capabilities;
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

/** The loaded definitions, each with the queue that the operator's policy gives it. */
export function definitionsOf(loaded: readonly LoadedModule[], policies: Configuration["tasks"] = {}): Served[] {
  return loaded
    .flatMap((module) => module.definitions)
    .map(({ name, queue }) => ({ name, queue: (Object.hasOwn(policies, name) ? policies[name]?.queue : undefined) ?? queue }));
}
