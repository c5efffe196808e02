import { mapInLanes, type Adapter, type AdapterContext, type Logger, type WorkerHandle } from "@task-backend/core/adapter";
import type { Links } from "./activities.ts";
import { capabilitiesOf } from "./capabilities.ts";
import { TemporalConnection } from "./connection.ts";
import { arrivalTimes } from "./event-times.ts";
import { forward } from "./forward.ts";
import { parseOptions, type TemporalOptions, type TemporalSettings } from "./options.ts";
import { Runs } from "./runs.ts";
import { signal } from "./signals.ts";
import { wait } from "./waits.ts";
import { WAKE } from "./wire.ts";
import { TemporalWorker } from "./worker.ts";

/**
 * An adapter over Temporal, for `createBackend`.
 * @throws ConfigurationError
 * @example
 * const backend = await createBackend(temporal({ address: "localhost:7233", namespace: "default" }));
 */
export function temporal(options: TemporalOptions = {}): Adapter {
  return makeAdapter(parseOptions(options, process.env));
}

/** The factory that `TASK_BACKEND_TYPE=temporal` loads. */
export function createAdapter({ url, options, env, log, retentionMs }: AdapterContext): Adapter {
  const given = typeof options === "object" && options !== null ? options : {};
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return makeAdapter(parseOptions({ ...retention, ...given, ...(url !== undefined && { url }) }, env), log);
}

/** How many starts are under way at a time when many runs are submitted together. */
const SUBMIT_LANES = 100;

function makeAdapter(settings: TemporalSettings, log?: Logger): Adapter {
  const connection = new TemporalConnection(settings);
  const runs = new Runs(connection);
  /** The workers that run or start: none outlives the adapter. */
  const workers = new Set<Promise<WorkerHandle>>();
  return {
    connect: () =>
      connection.call(async () => {
        const observed = await connection.open();
        log?.info(`temporal at ${settings.address}, namespace ${settings.namespace}`);
        return capabilitiesOf(settings, observed);
      }),
    submit: (requests) => mapInLanes(requests, SUBMIT_LANES, (request) => runs.submit(request)),
    get: (id) => connection.call(() => runs.read(id)),
    wait: (id, aborted) => wait(connection, runs, id, aborted),
    cancel: (id) => connection.call(() => runs.cancel(id)),
    signal: (id, request) => connection.call(() => signal(connection, runs, id, request)),
    startWorker: (request, runtime) => {
      const links = linksOf(connection, runs, runtime.log);
      const forget = (): unknown => workers.delete(starting);
      const starting = connection.call<WorkerHandle>(() => TemporalWorker.start(connection, request, runtime, links, forget));
      workers.add(starting);
      starting.catch(forget);
      return starting;
    },
    close: async () => {
      connection.end();
      const stopped = Promise.allSettled([...workers].map(async (worker) => (await worker).stop(0)));
      await connection.close(stopped);
    },
  };
}

/** The client functions that a worker needs. */
function linksOf(connection: TemporalConnection, runs: Runs, log: Logger): Links {
  return {
    forward: (forwarded) => forward(connection, runs, forwarded, log),
    heartbeat: (token, beat) => connection.client.activity.heartbeat(token, beat),
    isCancelRequested: async (id) => (await runs.workflow(id).describe()).raw.workflowExtendedInfo?.cancelRequested === true,
    closed: (id, aborted) => connection.waiting(() => runs.workflow(id).result(), aborted),
    arrivalTimes: (execution, entries, lastEvent) => arrivalTimes(connection.client, execution, entries, lastEvent),
    wake: async (id) => {
      await runs.workflow(id).signal(WAKE);
    },
  };
}
