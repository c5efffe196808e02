import {
  BackendUnavailableError,
  type Adapter,
  type AdapterContext,
  type Capabilities,
  type Logger,
  type RunRecord,
} from "@task-backend/core/adapter";
import { capabilitiesOf } from "./capabilities.ts";
import { Changes } from "./changes.ts";
import { Database } from "./database.ts";
import { RECORD_COLUMNS, toRecord, type RecordRow } from "./mapping.ts";
import { parseOptions, parseUrl, type SqliteOptions, type SqliteSettings } from "./options.ts";
import { cancelRun, insertRun, prune, signalRun } from "./runs.ts";
import { SqliteWorker } from "./worker.ts";
import { Waits } from "./waits.ts";

/** What a connected adapter holds. */
interface Connection {
  readonly database: Database;
  readonly changes: Changes;
  readonly waits: Waits;
  readonly workers: Set<SqliteWorker>;
}

/**
 * An adapter over one SQLite file, for `createBackend`. Many processes may use the file at once, on one machine.
 * @throws ConfigurationError
 * @example
 * const backend = await createBackend(sqlite({ file: "tasks.db" }));
 */
export function sqlite(options: SqliteOptions = {}): Adapter {
  return makeAdapter(parseOptions(options, process.cwd()));
}

/** What `TASK_BACKEND_TYPE=sqlite` loads. */
export function createAdapter({ url, options, root, log, retentionMs }: AdapterContext): Adapter {
  const given = typeof options === "object" ? options : {};
  const fromUrl = url === undefined ? {} : parseUrl(url);
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return makeAdapter(parseOptions({ ...retention, ...given, ...fromUrl }, root), log);
}

function makeAdapter(settings: SqliteSettings, log?: Logger): Adapter {
  let connection: Connection | undefined;

  const connected = (): Connection => {
    if (!connection) throw new BackendUnavailableError(`The sqlite file ${settings.file} is not open.`);
    return connection;
  };

  const read = (id: string): RunRecord | undefined => {
    const { database } = connected();
    const row = database.get<RecordRow>(`SELECT ${RECORD_COLUMNS} FROM runs WHERE id = ?`, id);
    // Exactly the retention, also before the next pruning.
    if (!row || (row.finished_at !== null && row.finished_at <= Date.now() - settings.retentionMs)) return undefined;
    return toRecord(row);
  };

  return {
    connect: async (): Promise<Capabilities> => {
      const database = await Database.open(settings);
      connection = connectionOf(database);
      log?.info(`sqlite at ${settings.file}`);
      await database.writer.write(() => prune(database, settings.retentionMs));
      return capabilitiesOf(settings, database.get<{ version: string }>("SELECT sqlite_version() AS version")?.version ?? "");
    },

    submit: async (runs) => {
      const { database } = connected();
      return database.writer.write(() => runs.map((run) => insertRun(database, run, settings.retentionMs)));
    },

    get: async (id) => connected().database.read(() => read(id)),

    wait: async (id, signal) => connected().waits.wait(id, () => read(id), signal),

    cancel: async (id) => {
      const { database } = connected();
      return database.writer.write(() => cancelRun(database, id));
    },

    signal: async (id, request) => {
      const { database } = connected();
      return database.writer.write(() => signalRun(database, id, request));
    },

    startWorker: async (request, runtime) => {
      const { database, changes, workers } = connected();
      const worker = new SqliteWorker(database, settings, changes, request, runtime);
      await worker.start();
      workers.add(worker);
      return {
        healthy: () => worker.healthy(),
        stop: async (graceMs) => {
          await worker.stop(graceMs);
          workers.delete(worker);
        },
      };
    },

    close: async () => {
      if (!connection) return;
      const { database, changes, waits } = connection;
      connection = undefined;
      changes.stop();
      waits.rejectAll(new BackendUnavailableError(`The sqlite file ${settings.file} was closed.`));
      database.writer.close();
      database.close();
    },
  };
}

function connectionOf(database: Database): Connection {
  const changes = new Changes(database);
  const waits = new Waits(database, changes);
  const workers = new Set<SqliteWorker>();
  database.writer.onCommit = () => {
    waits.check();
    for (const worker of workers) worker.notice();
  };
  changes.start();
  return { database, changes, waits, workers };
}
