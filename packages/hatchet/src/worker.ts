import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import {
  ConfigurationError,
  MAX_TIMER_MS,
  type DefinitionSpec,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { queueLabel, versionLabel } from "./labels.ts";
import { Leases } from "./leases.ts";
import { ATTEMPT_SLOTS, declare, hatchetName, Registry, type Declaration } from "./registry.ts";
import { Tasks } from "./tasks.ts";
import { Watchdog } from "./watchdog.ts";
import { Workflows } from "./workflows.ts";

/** Workflows wait most of the time, and take no slot of the tasks. */
const WORKFLOW_SLOTS = 1_000;
const RESTART_MS = 1_000;
const READY_MS = 8_000;

type SdkWorker = Awaited<ReturnType<HatchetClient["worker"]>>;

/** One Hatchet worker for all its queues, which are labels of it. */
export class HatchetWorker implements WorkerHandle {
  readonly #client: HatchetClient;
  readonly #request: WorkerRequest;
  readonly #runtime: WorkerRuntime;
  readonly #declarations: readonly Declaration[];
  readonly #tasks: Tasks;
  readonly #workflows: Workflows;
  readonly #watchdog: Watchdog;
  readonly #leases: Leases;
  #worker: SdkWorker | undefined;
  #stopping = false;
  #graceTimer: NodeJS.Timeout | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(client: HatchetClient, request: WorkerRequest, runtime: WorkerRuntime, retentionMs: number) {
    this.#client = client;
    this.#request = request;
    this.#runtime = runtime;
    this.#leases = new Leases(client);
    this.#tasks = new Tasks(runtime, client);
    this.#workflows = new Workflows(runtime, client, new Registry(client, retentionMs));
    const byName = distinct(runtime.definitions);
    this.#watchdog = new Watchdog(
      client,
      [...byName.values()].flatMap(({ name }) => [false, true].map((keyed) => hatchetName(name, keyed))),
      request.queues,
      runtime.log,
    );
    this.#declarations = [...byName.values()].flatMap((definition) =>
      [false, true].map((keyed) =>
        declare(client, definition, keyed, retentionMs, (context) =>
          this.#leases.during(context.taskRunExternalId(), () =>
            definition.kind === "task"
              ? this.#tasks.run(definition.name, context)
              : this.#workflows.run(definition.name, definition.version, context),
          ),
        ),
      ),
    );
  }

  /** @throws ConfigurationError for names that Hatchet cannot tell apart */
  static async start(client: HatchetClient, request: WorkerRequest, runtime: WorkerRuntime, retentionMs: number): Promise<HatchetWorker> {
    const worker = new HatchetWorker(client, request, runtime, retentionMs);
    try {
      await worker.#open();
    } catch (error) {
      worker.#stopping = true;
      throw error;
    }
    worker.#watchdog.start();
    return worker;
  }

  async #open(): Promise<void> {
    const { queues, concurrency, name } = this.#request;
    const versions = this.#runtime.definitions.filter(({ kind }) => kind === "workflow").map(versionLabel);
    const labels = Object.fromEntries([...queues.map(queueLabel), ...versions].map((label) => [label, 1]));
    const worker = await withoutSignals(() =>
      this.#client.worker(name.replaceAll(/[^\w.-]/g, "-"), {
        workflows: [...this.#declarations] as never,
        slots: concurrency * ATTEMPT_SLOTS,
        durableSlots: WORKFLOW_SLOTS,
        handleKill: false,
        labels,
      }),
    );
    this.#worker = worker;
    void this.#serve(worker);
    await worker.waitUntilReady(READY_MS);
  }

  /** The SDK gives up after some minutes without the server: then another takes its place. */
  async #serve(worker: SdkWorker): Promise<void> {
    let ended = await reasonOf(worker.start());
    while (!this.#stopping) {
      this.#runtime.log.warn(`The Hatchet worker ended${ended}; it is started again.`);
      await pause(RESTART_MS, undefined, { ref: false });
      if (this.#stopping) return;
      ended = await reasonOf(this.#open());
      if (ended === "") return;
    }
  }

  healthy(): boolean {
    return !this.#stopping && this.#worker !== undefined;
  }

  stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#graceTimer);
    const abort = (): void => this.#tasks.abortAll("shutdown");
    if (graceMs === 0) abort();
    else this.#graceTimer = setTimeout(abort, Math.min(graceMs, MAX_TIMER_MS));
    this.#stopped ??= this.#finishStopping();
    return this.#stopped;
  }

  async #finishStopping(): Promise<void> {
    this.#watchdog.stop();
    const paused = this.#worker?.pause()?.catch(() => {});
    // Its attempts write to their logs until they are over: the connection ends last.
    await Promise.all([paused, this.#tasks.drain()]);
    clearTimeout(this.#graceTimer);
    await this.#workflows.leave();
    await this.#worker?.stop().catch(() => {});
  }
}

/** For people: empty when it ended well. */
async function reasonOf(work: Promise<void>): Promise<string> {
  try {
    await work;
    return "";
  } catch (error) {
    return `: ${(error as Error).message}`;
  }
}

/** One of each name: a workflow's versions share it. */
function distinct(definitions: readonly DefinitionSpec[]): Map<string, DefinitionSpec> {
  const byName = new Map<string, DefinitionSpec>();
  for (const definition of definitions) {
    const key = hatchetName(definition.name, false);
    const other = byName.get(key);
    if (other && other.name !== definition.name) {
      throw new ConfigurationError(
        `Hatchet cannot tell "${other.name}" and "${definition.name}" apart: its names are of lower-case letters, digits and '.-_'. Rename one.`,
      );
    }
    byName.set(key, definition);
  }
  return byName;
}

/** The SDK takes the process's signals for each worker: they are the application's. */
async function withoutSignals<T>(make: () => Promise<T>): Promise<T> {
  const signals = ["SIGTERM", "SIGINT"] as const;
  const before = signals.map((signal) => new Set(process.listeners(signal)));
  const made = await make();
  for (const [index, signal] of signals.entries()) {
    for (const listener of process.listeners(signal)) if (!before[index]?.has(listener)) process.removeListener(signal, listener);
  }
  return made;
}
