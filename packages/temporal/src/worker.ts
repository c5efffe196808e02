import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Shutdown, type WorkerHandle, type WorkerRequest, type WorkerRuntime } from "@task-backend/core/adapter";
import { Worker, type NativeConnection } from "@temporalio/worker";
import { Activities, type Links } from "./activities.ts";
import { Awake } from "./awake.ts";
import { STICKY_MS } from "./capabilities.ts";
import type { TemporalConnection } from "./connection.ts";
import { isNotFound } from "./errors.ts";
import { toRef } from "./mapping.ts";
import type { TemporalSettings } from "./options.ts";
import { Gate, sharedSlots, SharedSlots } from "./slots.ts";
import { Ticks } from "./ticks.ts";
import { tolerant } from "./undecodable.ts";
import { TICK } from "./wire.ts";

const WORKFLOW_SLOTS = 40;
const TICK_SLOTS = 100;
const ACTIVITY_POLLS = 5;
const WORKFLOW_POLLS = 2;

/** One Temporal worker per queue, on one native connection and one bundle of the interpreter. */
export class TemporalWorker implements WorkerHandle {
  readonly #workers: readonly Worker[];
  readonly #activities: readonly Activities[];
  readonly #slots: SharedSlots;
  readonly #awake: Awake;
  readonly #tasksAreWorkflows: boolean;
  readonly #onStopped: () => void;
  readonly #runs: Promise<void>[];
  readonly #shutdown = new Shutdown({
    abort: () => {
      for (const activities of this.#activities) activities.abortAll("shutdown");
    },
    finish: () => this.#finishStopping(),
  });

  private constructor(queues: readonly QueueWorker[], parts: Parts, onStopped: () => void) {
    this.#workers = queues.map(({ worker }) => worker);
    this.#activities = queues.map(({ activities }) => activities);
    this.#slots = parts.slots;
    this.#awake = parts.awake;
    this.#tasksAreWorkflows = parts.tasksAreWorkflows;
    this.#onStopped = onStopped;
    const { log } = parts.runtime;
    this.#runs = this.#workers.map((worker) =>
      worker.run().catch((error: unknown) => log.error(`A Temporal worker ended: ${(error as Error).message}`)),
    );
  }

  /** @param onStopped called once nothing of the worker is running */
  static async start(
    connection: TemporalConnection,
    request: WorkerRequest,
    runtime: WorkerRuntime,
    links: Links,
    onStopped: () => void,
  ): Promise<TemporalWorker> {
    const { settings, observed } = connection;
    const parts: Parts = {
      settings,
      request,
      runtime,
      links,
      slots: new SharedSlots(sharedSlots(request.concurrency, request.queues.length)),
      gate: new Gate(request.concurrency),
      awake: new Awake(settings.heartbeatTimeoutMs / 2),
      ticks: new Ticks(runtime, links, settings.heartbeatTimeoutMs),
      tasksAreWorkflows: !observed.standalone,
      native: await connection.native(),
    };
    const made = await Promise.allSettled(request.queues.map((queue) => queueWorker(queue, parts)));
    const queues = made.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const failed = made.find((one) => one.status === "rejected");
    if (failed || connection.closed.aborted) {
      await Promise.allSettled(queues.map(({ worker }) => dispose(worker)));
      throw failed?.reason ?? connection.closed.reason;
    }
    parts.awake.watch();
    runtime.onStray((id) => {
      const ref = toRef(id);
      if (!ref) return;
      links.wake(ref.id).catch((error: unknown) => {
        if (!isNotFound(error)) runtime.log.warn(`Run ${id} could not be asked what it waits for: ${(error as Error).message}`);
      });
    });
    return new TemporalWorker(queues, parts, onStopped);
  }

  healthy(): boolean {
    return !this.#shutdown.stopping && this.#workers.every((worker) => worker.getState() === "RUNNING");
  }

  stop(graceMs: number): Promise<void> {
    return this.#shutdown.stop(graceMs);
  }

  async #finishStopping(): Promise<void> {
    if (this.#tasksAreWorkflows) {
      this.#slots.close();
      await Promise.all(this.#activities.map((activities) => activities.drain()));
    }
    for (const worker of this.#workers) if (worker.getState() === "RUNNING") worker.shutdown();
    await Promise.all(this.#runs);
    this.#awake.close();
    this.#onStopped();
  }
}

interface QueueWorker {
  readonly worker: Worker;
  readonly activities: Activities;
}

/** The parts that the workers of all queues share. */
interface Parts {
  readonly settings: TemporalSettings;
  readonly request: WorkerRequest;
  readonly runtime: WorkerRuntime;
  readonly links: Links;
  readonly slots: SharedSlots;
  readonly gate: Gate;
  readonly awake: Awake;
  readonly ticks: Ticks;
  readonly tasksAreWorkflows: boolean;
  readonly native: NativeConnection;
}

async function queueWorker(queue: string, parts: Parts): Promise<QueueWorker> {
  const { settings, request, runtime, links, slots, gate, awake, ticks, tasksAreWorkflows, native } = parts;
  const activities = new Activities(runtime, gate, awake, links, settings.heartbeatTimeoutMs);
  // The SDK asks a supplier in JavaScript before each poll, at a tenth of the throughput, so it is used only for shared slots.
  const isShared = request.queues.length > 1 || tasksAreWorkflows;
  const worker = await Worker.create({
    connection: native,
    namespace: settings.namespace,
    taskQueue: queue,
    identity: request.name,
    activities: { default: activities.execute, [TICK]: ticks.tick },
    workflowBundle: { codePath: interpreterBundle() },
    tuner: {
      activityTaskSlotSupplier: isShared ? slots : { type: "fixed-size", numSlots: request.concurrency },
      workflowTaskSlotSupplier: { type: "fixed-size", numSlots: WORKFLOW_SLOTS },
      localActivityTaskSlotSupplier: { type: "fixed-size", numSlots: TICK_SLOTS },
      nexusTaskSlotSupplier: { type: "fixed-size", numSlots: 1 },
    },
    // A poll of a frozen process takes a start, which is lost until its heartbeat is missed, so there are no more polls than needed.
    // With shared slots, each poll of an idle queue would also keep a slot from the other queues.
    activityTaskPollerBehavior: isShared
      ? { type: "simple-maximum", maximum: 1 }
      : { type: "autoscaling", minimum: 1, initial: 1, maximum: ACTIVITY_POLLS },
    workflowTaskPollerBehavior: { type: "simple-maximum", maximum: WORKFLOW_POLLS },
    stickyQueueScheduleToStartTimeout: STICKY_MS,
    // Our own stop ends earlier: attempts get the grace period, then are aborted and released.
    shutdownGraceTime: "365 days",
    maxHeartbeatThrottleInterval: "1s",
    defaultHeartbeatThrottleInterval: "1s",
    ...(settings.dataConverter && { dataConverter: settings.dataConverter }),
  });
  // The converter was loaded for this worker alone, and the options only take one from a file.
  const { loadedDataConverter } = worker.options;
  Object.assign(loadedDataConverter, { payloadConverter: tolerant(loadedDataConverter.payloadConverter) });
  return { worker, activities };
}

/** Ends a worker that was created and is not needed: it must run before it can end. */
async function dispose(worker: Worker): Promise<void> {
  await worker.runUntil(Promise.resolve());
}

/** The bundle is beside the built files, or in the build when this runs from its sources. */
function interpreterBundle(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return [join(here, "interpreter.js"), join(here, "../dist/interpreter.js")].find(existsSync) as string;
}
