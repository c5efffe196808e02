import {
  BackendUnavailableError,
  type Adapter,
  type AdapterContext,
  type Logger,
  type RunRecord,
  type SignalRequest,
} from "@task-backend/core/adapter";
import { capabilitiesOf } from "./capabilities.ts";
import { toUnavailable } from "./errors.ts";
import { toRef } from "./ids.ts";
import { cancelledFailure, toRecord, type StoredJob } from "./mapping.ts";
import { parseOptions, type BullmqOptions, type BullmqSettings } from "./options.ts";
import { PostgresStore } from "./postgres/postgres-store.ts";
import { RedisStore } from "./redis/redis-store.ts";
import { sendSignal } from "./signals.ts";
import type { Store } from "./store.ts";
import { Submitter } from "./submitter.ts";
import { Waits } from "./waits.ts";
import { BullmqWorker } from "./worker.ts";

/**
 * An adapter over BullMQ, for `createBackend`: on Redis, or on PostgreSQL if the URL or the connection is one of PostgreSQL.
 * @throws ConfigurationError
 * @example
 * const backend = await createBackend(bullmq({ url: "redis://localhost:6379" }));
 */
export function bullmq(options: BullmqOptions = {}): Adapter {
  return makeAdapter(parseOptions(options));
}

/** The factory that `TASK_BACKEND_TYPE=bullmq` loads. */
export function createAdapter({ url, options, env, log, retentionMs }: AdapterContext): Adapter {
  const given: BullmqOptions = typeof options === "object" && options !== null ? options : {};
  const found = given.connection === undefined ? (url ?? given.url ?? env["REDIS_URL"]) : undefined;
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return makeAdapter(parseOptions({ ...retention, ...given, ...(found !== undefined && { url: found }) }), log);
}

function makeAdapter(settings: BullmqSettings, log?: Logger): Adapter {
  let store: Store | undefined;
  let waits: Waits | undefined;
  let submitter: Submitter | undefined;

  // A run is gone exactly after its retention, whether or not it has been pruned.
  const expired = ({ finishedOn }: StoredJob): boolean => finishedOn !== undefined && finishedOn <= Date.now() - settings.retentionMs;

  const connected = (): Store => {
    if (!store) throw new BackendUnavailableError("The bullmq backend is not connected.");
    return store;
  };

  /** Makes one call to the store; an error of its driver becomes BackendUnavailableError. */
  const call = async <T>(run: (open: Store) => Promise<T>): Promise<T> => {
    const open = connected();
    try {
      return await run(open);
    } catch (error) {
      throw toUnavailable(error, open.where);
    }
  };

  const read = async (open: Store, id: string): Promise<StoredJob | undefined> => {
    const ref = toRef(id);
    const job = ref && (await open.get(ref));
    return job && !expired(job) ? job : undefined;
  };

  return {
    connect: async (signal) => {
      const open =
        settings.target.store === "redis" ? new RedisStore(settings, settings.target) : new PostgresStore(settings, settings.target);
      try {
        const { version } = await open.connect(signal);
        store = open;
        waits = new Waits(open, expired);
        submitter = new Submitter(open, expired, (job) => waits?.expect(job));
        log?.info(`bullmq on ${open.where}`);
        return capabilitiesOf(settings, { version, where: open.where });
      } catch (error) {
        await open.close().catch(() => {});
        throw toUnavailable(error, open.where);
      }
    },

    submit: (runs) => call(() => (submitter as Submitter).submit(runs)),

    get: (id) =>
      call(async (open): Promise<RunRecord | undefined> => {
        const job = await read(open, id);
        return job && toRecord(job);
      }),

    wait: (id, signal) => {
      connected();
      return (waits as Waits).wait(id, signal);
    },

    cancel: (id) =>
      call(async (open) => {
        const job = await read(open, id);
        return job ? open.cancel(job, cancelledFailure(job)) : "unknown";
      }),

    signal: (id, request: SignalRequest) =>
      call(async (open) => {
        const job = await read(open, id);
        return job ? sendSignal(open, job, request) : "unknown";
      }),

    startWorker: (request, runtime) =>
      call(async (open) => {
        const worker = new BullmqWorker(open, settings, request, runtime);
        await worker.start();
        if (store === open) return worker;
        await worker.stop(0);
        throw new BackendUnavailableError("The bullmq backend was closed while the worker started.");
      }),

    close: async () => {
      const open = store;
      store = undefined;
      waits?.rejectAll(new BackendUnavailableError("The bullmq backend was closed."));
      await open?.close();
    },
  };
}
