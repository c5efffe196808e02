import type { Logger } from "../values/log.ts";
import type { Capabilities } from "./capabilities.ts";
import type { RunId, RunRecord, RunRequest, Settlement, SignalRequest, SubmitOutcome } from "./runs.ts";
import type { WorkerHandle, WorkerRequest, WorkerRuntime } from "./workers.ts";

/** One engine. A method that cannot reach it rejects with BackendUnavailableError; core limits the time of each call. */
export interface Adapter {
  /** Connects once, before any other method is called. Resolves with the capabilities observed on the server. */
  connect(signal: AbortSignal): Promise<Capabilities>;
  /** Resolves when the engine has durably accepted each run; the outcomes are in the order of the runs. Needs no worker. */
  submit(runs: readonly RunRequest[]): Promise<readonly SubmitOutcome[]>;
  /** Resolves with undefined for unknown ids and for records past the retention. */
  get(id: RunId): Promise<RunRecord | undefined>;
  /** Resolves when the run is settled. One shared stream for all waits, no poll per run. Undefined when the id is unknown. */
  wait(id: RunId, signal: AbortSignal | undefined): Promise<Settlement | undefined>;
  /** `requested` also when the run was cancelled at once; `settled` when the run had already settled. */
  cancel(id: RunId): Promise<"requested" | "settled" | "unknown">;
  /** Stores the signal for the workflow, in order, once per `dedupeId`. */
  signal(id: RunId, request: SignalRequest): Promise<"accepted" | "settled" | "unknown" | "not-a-workflow">;
  /** Resolves once the worker is claiming. */
  startWorker(request: WorkerRequest, runtime: WorkerRuntime): Promise<WorkerHandle>;
  /** Frees all resources; pending waits reject. */
  close(): Promise<void>;
}

/** The function that every adapter package exports as `createAdapter`. Reads its engine's customary variables from `env`. */
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
