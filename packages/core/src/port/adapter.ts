import type { Logger } from "../values/log.ts";
import type { Capabilities } from "./capabilities.ts";
import type { RunId, RunRecord, RunRequest, Settlement, SignalRequest, SubmitOutcome } from "./runs.ts";
import type { WorkerHandle, WorkerRequest, WorkerRuntime } from "./workers.ts";

/** One engine. A method that cannot reach it rejects with BackendUnavailableError; core bounds the time of each call. */
export interface Adapter {
  /** Connects, once; later calls of other methods need it. Answers with what was observed on the server. */
  connect(signal: AbortSignal): Promise<Capabilities>;
  /** Resolves when the engine has durably accepted each run, per item and in order. Needs no worker. */
  submit(runs: readonly RunRequest[]): Promise<readonly SubmitOutcome[]>;
  /** Undefined for unknown ids and for records past the retention. */
  get(id: RunId): Promise<RunRecord | undefined>;
  /** Resolves when the run is settled. One shared stream for all waits, no poll per run. Undefined when the id is unknown. */
  wait(id: RunId, signal: AbortSignal | undefined): Promise<Settlement | undefined>;
  /** `requested` also when it took effect at once; `settled` when there was nothing left to cancel. */
  cancel(id: RunId): Promise<"requested" | "settled" | "unknown">;
  /** Keeps the signal for the workflow, in order, once per `dedupeId`. */
  signal(id: RunId, request: SignalRequest): Promise<"accepted" | "settled" | "unknown" | "not-a-workflow">;
  /** Resolves once the worker is claiming. */
  startWorker(request: WorkerRequest, runtime: WorkerRuntime): Promise<WorkerHandle>;
  /** Frees everything; pending waits reject. */
  close(): Promise<void>;
}

/** What every adapter package exports as `createAdapter`. Reads its engine's customary variables from `env`. */
export type CreateAdapter = (context: AdapterContext) => Adapter | Promise<Adapter>;

export interface AdapterContext {
  /** `TASK_BACKEND_URL`, or `url` of `getBackend`. */
  readonly url?: string;
  /** `options` of `getBackend` or the configuration file; the adapter parses them. */
  readonly options?: unknown;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** The folder of the application's package.json. */
  readonly root: string;
  /** How long settled records must be kept. Absent: the engine's own default. */
  readonly retentionMs?: number;
}
