import {
  mapInLanes,
  type Adapter,
  type AdapterContext,
  type Capabilities,
  type Logger,
  type RunRecord,
  type RunRequest,
  type Settlement,
  type SignalRequest,
  type SubmitOutcome,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import type { Links } from "./activities.ts";
import { capabilitiesOf } from "./capabilities.ts";
import { TemporalConnection } from "./connection.ts";
import { arrivalTimes } from "./event-times.ts";
import { forward } from "./forward.ts";
import { parseOptions, type TemporalOptions, type TemporalSettings } from "./options.ts";
import { Runs } from "./runs.ts";
import { signal, type SignalOutcome } from "./signals.ts";
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
  return new TemporalAdapter(parseOptions(options, process.env));
}

/** What `TASK_BACKEND_TYPE=temporal` loads. */
export function createAdapter({ url, options, env, log, retentionMs }: AdapterContext): Adapter {
  const given = typeof options === "object" && options !== null ? options : {};
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return new TemporalAdapter(parseOptions({ ...retention, ...given, ...(url !== undefined && { url }) }, env), log);
}

/** How many starts are under way at a time, of many submitted together. */
const SUBMIT_LANES = 100;

class TemporalAdapter implements Adapter {
  readonly #connection: TemporalConnection;
  readonly #runs: Runs;
  readonly #log: Logger | undefined;
  /** Those that run, and those that start: none outlives the adapter. */
  readonly #workers = new Set<Promise<WorkerHandle>>();

  constructor(settings: TemporalSettings, log?: Logger) {
    this.#connection = new TemporalConnection(settings);
    this.#runs = new Runs(this.#connection);
    this.#log = log;
  }

  connect(): Promise<Capabilities> {
    const { settings } = this.#connection;
    return this.#connection.call(async () => {
      const observed = await this.#connection.open();
      this.#log?.info(`temporal at ${settings.address}, namespace ${settings.namespace}`);
      return capabilitiesOf(settings, observed);
    });
  }

  submit(runs: readonly RunRequest[]): Promise<readonly SubmitOutcome[]> {
    return mapInLanes(runs, SUBMIT_LANES, (run) => this.#runs.submit(run));
  }

  get(id: string): Promise<RunRecord | undefined> {
    return this.#connection.call(() => this.#runs.read(id));
  }

  wait(id: string, aborted: AbortSignal | undefined): Promise<Settlement | undefined> {
    return wait(this.#connection, this.#runs, id, aborted);
  }

  cancel(id: string): Promise<"requested" | "settled" | "unknown"> {
    return this.#connection.call(() => this.#runs.cancel(id));
  }

  signal(id: string, request: SignalRequest): Promise<SignalOutcome> {
    return this.#connection.call(() => signal(this.#connection, this.#runs, id, request));
  }

  async startWorker(request: WorkerRequest, runtime: WorkerRuntime): Promise<WorkerHandle> {
    const starting = this.#connection.call(() =>
      TemporalWorker.start(this.#connection, request, runtime, this.#links(runtime.log), () => this.#workers.delete(starting)),
    );
    this.#workers.add(starting);
    starting.catch(() => this.#workers.delete(starting));
    return starting;
  }

  async close(): Promise<void> {
    this.#connection.end();
    const workers = await Promise.allSettled(this.#workers);
    await Promise.allSettled(workers.map((worker) => worker.status === "fulfilled" && worker.value.stop(0)));
    await this.#connection.close();
  }

  #links(log: Logger): Links {
    const [connection, runs] = [this.#connection, this.#runs];
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
}
