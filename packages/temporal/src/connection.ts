import { setTimeout as pause } from "node:timers/promises";
import { BackendUnavailableError, ConfigurationError } from "@task-backend/core/adapter";
import { Client, Connection, defaultGrpcRetryOptions, makeGrpcRetryInterceptor, type GrpcRetryOptions } from "@temporalio/client";
import { NativeConnection, Runtime, DefaultLogger } from "@temporalio/worker";
import type { Observed } from "./capabilities.ts";
import type { TemporalSettings } from "./options.ts";

/** gRPC's numbers. */
const NOT_FOUND = 5;
const UNIMPLEMENTED = 12;
/** UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE. */
const AWAY: readonly unknown[] = [2, 4, 14];

/** From this version on priorities are on; no bit of the server tells. */
const PRIORITIES_SINCE = [1, 31, 2] as const;

const RETRIES = defaultGrpcRetryOptions();
const MAX_RETRY_DELAY_MS = 1_000;

/** The client of a backend, and the native connection that its workers share. */
export class TemporalConnection {
  readonly #settings: TemporalSettings;
  #connection: Connection | undefined;
  #native: Promise<NativeConnection> | undefined;
  #client: Client | undefined;
  #closing = false;
  #retryAtMs = 0;

  /** The SDK's own way to try again, which must not outlive the channel: it would throw into nowhere. */
  readonly #retries: GrpcRetryOptions = {
    retryableDecider: (attempt, status) => !this.#closing && RETRIES.retryableDecider(attempt, status),
    delayFunction: (attempt, status) => {
      const delayMs = Math.min(RETRIES.delayFunction(attempt, status), MAX_RETRY_DELAY_MS);
      this.#retryAtMs = Date.now() + delayMs;
      return delayMs;
    },
  };

  constructor(settings: TemporalSettings) {
    this.#settings = settings;
  }

  get client(): Client {
    if (!this.#client) throw new BackendUnavailableError("The temporal backend is not connected.");
    return this.#client;
  }

  /** @throws ConfigurationError for a namespace that does not exist */
  async open(): Promise<Observed> {
    const { address, namespace, connect, dataConverter } = this.#settings;
    this.#connection =
      this.#settings.connection ?? (await Connection.connect({ ...connect, interceptors: [makeGrpcRetryInterceptor(this.#retries)] }));
    this.#client = new Client({ connection: this.#connection, namespace, ...(dataConverter && { dataConverter }) });
    const service = this.#connection.workflowService;
    const described = await service.describeNamespace({ namespace }).catch((error: unknown) => {
      if (grpcCode(error) !== NOT_FOUND) throw error;
      throw new ConfigurationError(
        `There is no namespace "${namespace}" on Temporal at ${address}; make it: temporal operator namespace create --namespace ${namespace}`,
        { cause: error },
      );
    });
    const [{ serverVersion }, standalone] = await Promise.all([service.getSystemInfo({}), this.#hasStandaloneActivities()]);
    const version = serverVersion ?? "";
    const seconds = Number(described.config?.workflowExecutionRetentionTtl?.seconds ?? 24 * 3600);
    return {
      version,
      retentionMs: Math.min(seconds * 1_000, this.#settings.retentionMs ?? Number.POSITIVE_INFINITY),
      standalone,
      priorities: !isOlder(version, PRIORITIES_SINCE),
    };
  }

  async #hasStandaloneActivities(): Promise<boolean> {
    try {
      await this.client.activity.getHandle("task-backend-probe").describe();
      return true;
    } catch (error) {
      return grpcCode(error) !== UNIMPLEMENTED;
    }
  }

  /** For workers. */
  native(): Promise<NativeConnection> {
    const { connect, nativeConnection } = this.#settings;
    if (nativeConnection) return Promise.resolve(nativeConnection);
    installRuntime();
    this.#native ??= NativeConnection.connect(connect);
    this.#native.catch(() => (this.#native = undefined));
    return this.#native;
  }

  async close(): Promise<void> {
    const native = await this.#native?.catch(() => undefined);
    await native?.close().catch(() => {});
    if (!this.#connection || this.#connection === this.#settings.connection) return;
    this.#closing = true;
    const retryInMs = this.#retryAtMs - Date.now();
    if (retryInMs > 0) await pause(retryInMs + 100);
    await this.#connection.close();
  }
}

let installed = false;

/** The SDK's runtime is one a process, and by default it takes the process's signals; whoever made it first has made it. */
function installRuntime(): void {
  if (installed) return;
  installed = true;
  try {
    const telemetryOptions = { logging: { filter: "ERROR" } };
    Runtime.install({ shutdownSignals: [], logger: new DefaultLogger("ERROR"), telemetryOptions });
  } catch {
    // The application has installed its own.
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

/** Whether the server may answer later. */
export function isAway(error: unknown): boolean {
  return AWAY.includes(grpcCode(error));
}

/** Of what gRPC answered, also where the client has wrapped it. */
export function grpcCode(error: unknown): unknown {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  return code ?? cause?.code;
}

/** Whether the server does not know the id. */
export function isNotFound(error: unknown): boolean {
  const { name } = error as { name?: string };
  return name === "WorkflowNotFoundError" || name === "ActivityNotFoundError" || grpcCode(error) === NOT_FOUND;
}
