import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import {
  ConfigurationError,
  Shutdown,
  type DefinitionSpec,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { insistUntil } from "./client.ts";
import { withOneListener } from "./durable-stream.ts";
import { queueLabel, versionLabel } from "./labels.ts";
import { Leases } from "./leases.ts";
import { ATTEMPT_SLOTS, declare, hatchetName, Registry, type Declaration } from "./registry.ts";
import { SdkWorker, type SdkWorkerOptions } from "./sdk-worker.ts";
import { Tasks } from "./tasks.ts";
import { Watchdog } from "./watchdog.ts";
import { Workflows } from "./workflows.ts";

/** Workflows mostly wait, and take no slot of the tasks. */
const WORKFLOW_SLOTS = 1_000;
const RESTART_MS = 1_000;
/** After the grace period attempts are aborted; this is how long their release may take. */
const RELEASES_MS = 5_000;

/** One Hatchet worker for all its queues, which are its labels. */
export class HatchetWorker implements WorkerHandle {
  readonly #client: HatchetClient;
  readonly #options: SdkWorkerOptions;
  readonly #runtime: WorkerRuntime;
  readonly #tasks: Tasks;
  readonly #workflows: Workflows;
  readonly #watchdog: Watchdog;
  readonly #leases: Leases;
  readonly #stopping = new AbortController();
  #worker: SdkWorker | undefined;
  #serving: Promise<void> | undefined;
  #force = (): void => {};
  readonly #forced = new Promise<void>((resolve) => (this.#force = resolve));
  #forceTimer: NodeJS.Timeout | undefined;
  readonly #shutdown = new Shutdown({
    abort: () => {
      this.#tasks.abortAll("shutdown");
      this.#forceTimer ??= setTimeout(this.#force, RELEASES_MS);
    },
    finish: () => this.#finishStopping(),
  });

  private constructor(client: HatchetClient, request: WorkerRequest, runtime: WorkerRuntime, retentionMs: number) {
    this.#client = client;
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
    const declarations = [...byName.values()].flatMap((definition) =>
      [false, true].map((keyed) => declare(client, definition, keyed, retentionMs, (context) => this.#run(definition, context))),
    );
    this.#options = optionsOf(request, runtime.definitions, declarations);
    withOneListener(client);
    insistUntil(client, this.#stopping.signal);
  }

  /**
   * @throws ConfigurationError for names that Hatchet cannot tell apart
   * @throws BackendUnavailableError
   */
  static async start(client: HatchetClient, request: WorkerRequest, runtime: WorkerRuntime, retentionMs: number): Promise<HatchetWorker> {
    const worker = new HatchetWorker(client, request, runtime, retentionMs);
    worker.#worker = await SdkWorker.open(client, worker.#options, worker.#stopping.signal);
    worker.#serving = worker.#serve(worker.#worker);
    worker.#watchdog.start();
    return worker;
  }

  #run({ kind, name, version }: DefinitionSpec, context: Parameters<Tasks["run"]>[1]): Promise<object> {
    return this.#leases.during(context.taskRunExternalId(), () =>
      kind === "task" ? this.#tasks.run(name, context) : this.#workflows.run(name, version, context),
    );
  }

  /** Serves until the stop. The SDK gives up after some minutes without the server; then one worker at a time is tried in its place. */
  async #serve(first: SdkWorker): Promise<void> {
    const { signal } = this.#stopping;
    let worker: SdkWorker | undefined = first;
    try {
      for (;;) {
        const reason = await Promise.race([worker.ended, aborted(signal)]);
        if (reason === undefined) return;
        this.#runtime.log.warn(`The Hatchet worker ended${reason}; it is started again.`);
        this.#worker = undefined;
        await worker.close();
        worker = undefined;
        while (!worker) {
          await pause(RESTART_MS, undefined, { ref: false });
          if (signal.aborted) return;
          worker = await this.#reopen();
        }
        this.#worker = worker;
      }
    } finally {
      await worker?.close();
    }
  }

  async #reopen(): Promise<SdkWorker | undefined> {
    const { signal } = this.#stopping;
    try {
      return await SdkWorker.open(this.#client, this.#options, signal);
    } catch (error) {
      if (!signal.aborted) this.#runtime.log.debug(`The Hatchet worker does not start yet: ${(error as Error).message}`);
      return undefined;
    }
  }

  healthy(): boolean {
    return !this.#shutdown.stopping && this.#worker !== undefined;
  }

  stop(graceMs: number): Promise<void> {
    return this.#shutdown.stop(graceMs);
  }

  async #finishStopping(): Promise<void> {
    this.#watchdog.stop();
    const paused = this.#worker?.pause();
    // The attempts write to their logs until they are over, so the connection ends last.
    await Promise.race([Promise.all([paused, this.#tasks.drain(), this.#workflows.leave()]), this.#forced]);
    clearTimeout(this.#forceTimer);
    this.#leases.stop();
    this.#stopping.abort(new Error("The worker stops."));
    await this.#serving;
  }
}

function optionsOf(
  { queues, concurrency, name }: WorkerRequest,
  definitions: readonly DefinitionSpec[],
  workflows: readonly Declaration[],
): SdkWorkerOptions {
  const versions = definitions.filter(({ kind }) => kind === "workflow").map(versionLabel);
  return {
    name: name.replaceAll(/[^\w.-]/g, "-"),
    workflows,
    slots: concurrency * ATTEMPT_SLOTS,
    durableSlots: WORKFLOW_SLOTS,
    labels: Object.fromEntries([...queues.map(queueLabel), ...versions].map((label) => [label, 1])),
  };
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
}

/** One definition per name: the versions of a workflow share it. */
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
