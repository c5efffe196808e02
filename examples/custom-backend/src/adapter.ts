import {
  BackendUnavailableError,
  type Adapter,
  type Capabilities,
  type CreateAdapter,
  type RunRecord,
  type WorkerHandle,
} from "@task-backend/core/adapter";
import { Database } from "./database.ts";
import { parseOptions, type PostgresQueueOptions, type Settings } from "./options.ts";
import { cancel, insertRuns, signal, toRecord, type Row } from "./runs.ts";
import { Waits } from "./waits.ts";
import { PostgresWorker } from "./worker.ts";

/** The factory that `TASK_BACKEND_TYPE=custom-backend` loads. */
export const createAdapter: CreateAdapter = ({ url, options, retentionMs }) => {
  const given = typeof options === "object" ? options : {};
  return makeAdapter(
    parseOptions({ ...given, ...(url !== undefined && { url }), ...(retentionMs !== undefined && { retention: retentionMs }) }),
  );
};

/**
 * An adapter for `createBackend` that keeps tasks and workflows in tables of a PostgreSQL database.
 * @throws ConfigurationError
 */
export function postgresQueue(options: PostgresQueueOptions): Adapter {
  return makeAdapter(parseOptions({ ...options }));
}

function makeAdapter(settings: Settings): Adapter {
  const database = new Database(settings);
  const read = async (id: string): Promise<RunRecord | undefined> => {
    const [row] = await database.sql<Row>(
      "SELECT * FROM runs WHERE id = $1 AND (finished_at IS NULL OR finished_at > now_ms() - $2::float8)",
      [id, settings.retentionMs],
    );
    return row && toRecord(row);
  };
  const waits = new Waits(database, read);
  const workers = new Set<WorkerHandle>();

  return {
    connect: async () => capabilitiesOf(settings, database.where, await database.open()),
    submit: (runs) => database.transaction((sql) => insertRuns(sql, runs, settings.retentionMs)),
    get: read,
    wait: (id, abort) => waits.wait(id, abort),
    cancel: (id) => database.transaction((sql) => cancel(sql, id)),
    signal: (id, request) => database.transaction((sql) => signal(sql, id, request)),
    startWorker: async (request, runtime) => {
      const worker = await PostgresWorker.start(database, settings, request, runtime);
      workers.add(worker);
      return worker;
    },
    close: async () => {
      waits.close(new BackendUnavailableError(`The backend on PostgreSQL at ${database.where} was closed.`));
      await Promise.all([...workers].map((worker) => worker.stop(0)));
      await database.close();
    },
  };
}

function capabilitiesOf({ leaseMs, retentionMs }: Settings, where: string, version: string): Capabilities {
  return {
    engine: "custom-backend",
    version,
    where,
    features: {
      lostStarts: "native",
      backoff: "native",
      retryAfter: "native",
      timeout: "emulated",
      cancelWaiting: "native",
      cancelRunning: "native",
      priority: "native",
      delay: "native",
      idempotency: "native",
      idempotencyWithDelay: "native",
      queueIsolation: "native",
      unknownName: "native",
      release: "native",
      progress: "native",
      nullCharacters: "native",
      loneSurrogates: "native",
      keyOrder: "native",
      waitingStatuses: "native",
      workflows: "emulated",
    },
    limits: {
      maxPayloadBytes: 16 * 1024 * 1024,
      priorityLevels: 5,
      retentionMs,
      recoveryMs: Math.ceil(leaseMs * 1.4) + 500,
      timerLatenessMs: 1_000,
      dispatchMs: 500,
    },
  };
}
