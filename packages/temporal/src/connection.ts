import { setMaxListeners } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { BackendUnavailableError, ConfigurationError } from "@task-backend/core/adapter";
import { Client, Connection, defaultGrpcRetryOptions, makeGrpcRetryInterceptor, type GrpcRetryOptions } from "@temporalio/client";
import { NativeConnection, Runtime, DefaultLogger } from "@temporalio/worker";
import type { Observed } from "./capabilities.ts";
import { grpcCode, isAway, isNotFound, toError, UNIMPLEMENTED } from "./errors.ts";
import type { TemporalSettings } from "./options.ts";

/** The first version with priorities on; no capability of the server tells it. */
const PRIORITIES_SINCE = [1, 31, 2] as const;

const RETRIES = defaultGrpcRetryOptions();
const MAX_RETRY_DELAY_MS = 1_000;
/** How long the native connection and its workers may take to close. */
const CLOSE_MS = 5_000;
/** The pause before an unreachable server is asked again. */
const AWAY_MS = 200;

/** The client of a backend, and the native connection that its workers share. */
export class TemporalConnection {
  readonly settings: TemporalSettings;
  readonly #end = new AbortController();
  #connection: Connection | undefined;
  #native: Promise<NativeConnection> | undefined;
  #client: Client | undefined;
  #observed: Observed | undefined;
  #retryAtMs = 0;

  /** The SDK's own retries. They must end with the channel, or they would throw where nobody can catch the error. */
  readonly #retries: GrpcRetryOptions = {
    retryableDecider: (attempt, status) => !this.#end.signal.aborted && RETRIES.retryableDecider(attempt, status),
    delayFunction: (attempt, status) => {
      const delayMs = Math.min(RETRIES.delayFunction(attempt, status), MAX_RETRY_DELAY_MS);
      this.#retryAtMs = Date.now() + delayMs;
      return delayMs;
    },
  };

  constructor(settings: TemporalSettings) {
    this.settings = settings;
    // Each wait adds a listener.
    setMaxListeners(0, this.#end.signal);
  }

  get client(): Client {
    if (!this.#client) throw new BackendUnavailableError("The temporal backend is not connected.");
    return this.#client;
  }

  get observed(): Observed {
    if (!this.#observed) throw new BackendUnavailableError("The temporal backend is not connected.");
    return this.#observed;
  }

  /** Aborted when the backend closes. */
  get closed(): AbortSignal {
    return this.#end.signal;
  }

  /** @throws ConfigurationError for a namespace that does not exist */
  async open(): Promise<Observed> {
    const { address, namespace, connect, connectTimeoutMs, dataConverter } = this.settings;
    // The connection is created before it connects, so that closing the backend meanwhile closes it too.
    const interceptors = [makeGrpcRetryInterceptor(this.#retries)];
    this.#connection = this.settings.connection ?? Connection.lazy({ ...connect, connectTimeout: connectTimeoutMs, interceptors });
    await this.#reach(this.#connection);
    this.#client = new Client({ connection: this.#connection, namespace, ...(dataConverter && { dataConverter }) });
    const service = this.#connection.workflowService;
    const described = await service.describeNamespace({ namespace }).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
      throw new ConfigurationError(
        `There is no namespace "${namespace}" on Temporal at ${address}; make it: temporal operator namespace create --namespace ${namespace}`,
        { cause: error },
      );
    });
    const [{ serverVersion }, standalone] = await Promise.all([service.getSystemInfo({}), this.#hasStandaloneActivities()]);
    const version = serverVersion ?? "";
    const seconds = Number(described.config?.workflowExecutionRetentionTtl?.seconds ?? 24 * 3600);
    this.#observed = {
      version,
      retentionMs: Math.min(seconds * 1_000, this.settings.retentionMs ?? Number.POSITIVE_INFINITY),
      standalone,
      priorities: !isOlder(version, PRIORITIES_SINCE),
    };
    return this.#observed;
  }

  /** Runs a call of the adapter, and turns errors of the client into ours. */
  async call<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw toError(error, this.settings.address);
    }
  }

  /** Runs calls that wait at the server. They end at once when one of the signals is aborted, or the backend closes. */
  async waiting<T>(work: (aborted: AbortSignal) => Promise<T>, ...signals: readonly (AbortSignal | undefined)[]): Promise<T> {
    const connection = this.#connection ?? this.client.connection;
    // Each call gets its own controller, because the SDK adds a listener with each call and removes none.
    const own = new AbortController();
    setMaxListeners(0, own.signal);
    const all = [this.#end.signal, ...signals].filter((signal) => signal !== undefined);
    const abort = (): void => own.abort(all.find((signal) => signal.aborted)?.reason);
    for (const signal of all) signal.addEventListener("abort", abort, { once: true });
    if (all.some((signal) => signal.aborted)) abort();
    try {
      own.signal.throwIfAborted();
      return await connection.withAbortSignal(own.signal, () => work(own.signal));
    } catch (error) {
      throw own.signal.aborted ? own.signal.reason : error;
    } finally {
      for (const signal of all) signal.removeEventListener("abort", abort);
    }
  }

  /** Waits for the server. The SDK's own connect has a timer that outlives the connection. */
  async #reach(connection: Connection): Promise<void> {
    const deadlineMs = Date.now() + this.settings.connectTimeoutMs;
    const { signal } = this.#end;
    for (;;) {
      try {
        await this.#ask(connection, deadlineMs);
        return;
      } catch (error) {
        if (signal.aborted || !isAway(error) || Date.now() >= deadlineMs) throw error;
        await pause(AWAY_MS, undefined, { signal });
      }
    }
  }

  #ask(connection: Connection, deadlineMs: number): Promise<unknown> {
    return this.waiting(() => connection.withDeadline(deadlineMs, () => connection.workflowService.getSystemInfo({})));
  }

  async #hasStandaloneActivities(): Promise<boolean> {
    try {
      await this.client.activity.getHandle("task-backend-probe").describe();
      return true;
    } catch (error) {
      return grpcCode(error) !== UNIMPLEMENTED;
    }
  }

  /** The native connection, for workers. */
  native(): Promise<NativeConnection> {
    const { nativeConnection } = this.settings;
    if (nativeConnection) return Promise.resolve(nativeConnection);
    if (!this.#native) {
      this.#native = this.#connectNative();
      this.#native.catch(() => (this.#native = undefined));
    }
    return this.#native;
  }

  /** Connects once the server answers: a native connection cannot be told to stop trying. */
  async #connectNative(): Promise<NativeConnection> {
    const { connect, connectTimeoutMs } = this.settings;
    if (this.#connection) await this.#ask(this.#connection, Date.now() + connectTimeoutMs);
    this.#end.signal.throwIfAborted();
    installRuntime();
    return NativeConnection.connect(connect);
  }

  /** Ends the calls that wait at the server; other calls may go on until the connection closes. */
  end(): void {
    this.#end.abort(new BackendUnavailableError("The temporal backend was closed."));
  }

  /** @param users must end before the native connection closes */
  async close(users: Promise<unknown>): Promise<void> {
    this.end();
    const native = this.#native;
    const ended = users
      .then(() => native)
      .then((connection) => connection?.close())
      .catch(() => {});
    // A connection that does not answer may take long to close: it closes later.
    await Promise.race([ended, pause(CLOSE_MS, undefined, { ref: false })]);
    if (!this.#connection || this.#connection === this.settings.connection) return;
    const retryInMs = this.#retryAtMs - Date.now();
    if (retryInMs > 0) await pause(retryInMs + 100);
    await this.#connection.close();
  }
}

let installed = false;

/** Installs the SDK's runtime, of which a process has one. By default it would handle the process's signals. */
function installRuntime(): void {
  if (installed) return;
  installed = true;
  try {
    const telemetryOptions = { logging: { filter: "ERROR" } };
    Runtime.install({ shutdownSignals: [], logger: new DefaultLogger("ERROR"), telemetryOptions });
  } catch {
    // The application has installed its own runtime.
  }
}

function isOlder(version: string, than: readonly number[]): boolean {
  const parts = version.split(/[.-]/).map(Number);
  for (const [index, part] of than.entries()) {
    const mine = parts[index] ?? 0;
    if (mine !== part) return !(mine > part);
  }
  return false;
}
