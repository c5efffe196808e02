import {
  BackendClosedError,
  BackendUnavailableError,
  type Adapter,
  type AdapterContext,
  type Capabilities,
  type Logger,
  type RunRecord,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { capabilitiesOf } from "./capabilities.ts";
import { Changes } from "./changes.ts";
import { Database } from "./database.ts";
import { DamagedRowError } from "./errors.ts";
import { RECORD_COLUMNS, toRecord, type Row } from "./mapping.ts";
import { parseContext, parseOptions, type SqliteOptions, type SqliteSettings } from "./options.ts";
import { insertRun, signalRun } from "./runs.ts";
import { cancelRun, settleDamaged } from "./settling.ts";
import { prune, settleTimeless } from "./upkeep.ts";
import { SqliteWorker } from "./worker.ts";
import { Waits } from "./waits.ts";

/**
 * An adapter over one SQLite file, for `createBackend`. Many processes may use the file at once, on one machine.
 * @throws ConfigurationError
 * @example
 * const backend = await createBackend(sqlite({ file: "tasks.db" }));
 */
export function sqlite(options: SqliteOptions = {}): Adapter {
  return makeAdapter(parseOptions(options, process.cwd()));
}

/** The factory that `TASK_BACKEND_TYPE=sqlite` loads. */
export function createAdapter(context: AdapterContext): Adapter {
  return makeAdapter(parseContext(context), context.log);
}

function makeAdapter(settings: SqliteSettings, log?: Logger): Adapter {
  let connection: Connection | undefined;
  const connected = (): Connection => {
    if (!connection) throw new BackendUnavailableError(`The sqlite file ${settings.file} is not open.`);
    return connection;
  };
  const write = async <T>(run: (database: Database) => T): Promise<T> => {
    const { database } = connected();
    return database.writer.write(() => run(database));
  };

  return {
    connect: async (signal): Promise<Capabilities> => {
      const opened = await Connection.open(settings, signal, log);
      connection?.close();
      connection = opened;
      log?.info(`sqlite at ${settings.file}`);
      return capabilitiesOf(settings, opened.database.version);
    },
    submit: (runs) => write((database) => runs.map((run) => insertRun(database, run, settings.retentionMs))),
    get: async (id) => connected().read(id),
    wait: async (id, signal) => connected().waits.wait(id, signal),
    cancel: (id) => write((database) => cancelRun(database, id)),
    signal: (id, request) => write((database) => signalRun(database, id, request)),
    startWorker: async (request, runtime) => connected().startWorker(request, runtime),
    close: async () => {
      const open = connection;
      connection = undefined;
      open?.close();
    },
  };
}

/** An open file, with its workers and waits. */
class Connection {
  readonly database: Database;
  readonly waits: Waits;
  readonly #settings: SqliteSettings;
  readonly #changes: Changes;
  readonly #workers = new Set<SqliteWorker>();
  #closed = false;

  /** Opens the file. When that fails, or `signal` is aborted meanwhile, nothing is left open. */
  static async open(settings: SqliteSettings, signal: AbortSignal, log: Logger | undefined): Promise<Connection> {
    const database = await Database.open(settings, signal);
    const connection = new Connection(database, settings, log);
    const giveUp = (): void => connection.close();
    signal.addEventListener("abort", giveUp);
    try {
      await database.writer.write(() => {
        settleTimeless(database);
        prune(database, settings.retentionMs);
      });
      signal.throwIfAborted();
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  private constructor(database: Database, settings: SqliteSettings, log: Logger | undefined) {
    this.database = database;
    this.#settings = settings;
    const report = (error: unknown): void => {
      const message = `Something that follows the sqlite file ${settings.file} failed: ${(error as Error).message}`;
      if (log) log.error(message);
      else process.emitWarning(message);
    };
    this.#changes = new Changes(database, report);
    this.waits = new Waits(database, this.#changes, (id, past) => this.read(id, past));
    database.writer.onCommit = () => this.#changes.tell();
    database.writer.ring = () => this.#changes.ring();
    this.#changes.start();
  }

  /**
   * Reads a run. A run that cannot be read is settled as damaged.
   * @param past whether to read a run that is past its retention and not pruned yet
   */
  async read(id: string, past = false): Promise<RunRecord | undefined> {
    try {
      return this.database.read(() => this.#find(id, past));
    } catch (error) {
      if (!(error instanceof DamagedRowError)) throw error;
      await this.database.writer.write(() => settleDamaged(this.database, "id", id, error));
      return this.database.read(() => this.#find(id, past));
    }
  }

  #find(id: string, past: boolean): RunRecord | undefined {
    const row = this.database.get<Row>(`SELECT ${RECORD_COLUMNS} FROM runs WHERE id = ?`, id);
    if (!row) return undefined;
    const record = toRecord(row);
    // A run is gone exactly after its retention, whether or not it has been pruned.
    const { finishedAtMs = Infinity } = record;
    return past || finishedAtMs > Date.now() - this.#settings.retentionMs ? record : undefined;
  }

  async startWorker(request: WorkerRequest, runtime: WorkerRuntime): Promise<WorkerHandle> {
    const worker = new SqliteWorker(this.database, this.#settings, this.#changes, request, runtime);
    // The worker is added before it starts, so that closing ends it at any time.
    this.#workers.add(worker);
    try {
      await worker.start();
    } catch (error) {
      worker.abandon();
      this.#workers.delete(worker);
      throw error;
    }
    return {
      healthy: () => worker.healthy(),
      stop: async (graceMs) => {
        await worker.stop(graceMs);
        this.#workers.delete(worker);
      },
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const worker of this.#workers) worker.abandon();
    this.#workers.clear();
    this.#changes.stop();
    this.waits.rejectAll(new BackendClosedError("output"));
    this.database.writer.close();
    this.database.close();
  }
}
