import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { MAX_TIMER_MS, type WorkerHandle, type WorkerRequest, type WorkerRuntime } from "@task-backend/core/adapter";
import { Worker } from "@temporalio/worker";
import { Activities, type Links } from "./activities.ts";
import { Awake } from "./awake.ts";
import type { TemporalConnection } from "./connection.ts";
import type { TemporalSettings } from "./options.ts";
import { STICKY_MS } from "./capabilities.ts";
import { Gate, SharedSlots } from "./slots.ts";
import { TICK } from "./wire.ts";

const WORKFLOW_SLOTS = 40;
const TICK_SLOTS = 100;
const ACTIVITY_POLLS = 5;
const WORKFLOW_POLLS = 2;

/** One Temporal worker a queue, on one native connection and one bundle of the interpreter. */
export class TemporalWorker implements WorkerHandle {
  readonly #workers: Worker[];
  readonly #activities: Activities[];
  readonly #slots: SharedSlots;
  readonly #awake: Awake;
  readonly #tasksAreWorkflows: boolean;
  readonly #runs: Promise<void>[] = [];
  #stopping = false;
  #graceTimer: NodeJS.Timeout | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(workers: Worker[], activities: Activities[], slots: SharedSlots, awake: Awake, tasksAreWorkflows: boolean) {
    this.#workers = workers;
    this.#activities = activities;
    this.#slots = slots;
    this.#awake = awake;
    this.#tasksAreWorkflows = tasksAreWorkflows;
  }

  static async start(
    connection: TemporalConnection,
    settings: TemporalSettings,
    request: WorkerRequest,
    runtime: WorkerRuntime,
    { tasksAreWorkflows, ...links }: Links & { readonly tasksAreWorkflows: boolean },
  ): Promise<TemporalWorker> {
    const slots = new SharedSlots(Math.max(request.concurrency, request.queues.length));
    // A supplier in JavaScript is asked before each poll: a tenth of the throughput, where there is nothing to share.
    const shared = request.queues.length > 1 || tasksAreWorkflows;
    const gate = new Gate(request.concurrency);
    const awake = new Awake(settings.heartbeatTimeoutMs / 2);
    const native = await connection.native();
    const activities: Activities[] = [];
    const workers = await Promise.all(
      request.queues.map((queue) => {
        const own = new Activities(runtime, gate, awake, links, settings.heartbeatTimeoutMs);
        activities.push(own);
        return Worker.create({
          connection: native,
          namespace: settings.namespace,
          taskQueue: queue,
          identity: request.name,
          activities: { default: own.execute, [TICK]: own.tick },
          workflowBundle: { codePath: interpreterBundle() },
          tuner: {
            activityTaskSlotSupplier: shared ? slots : { type: "fixed-size", numSlots: request.concurrency },
            workflowTaskSlotSupplier: { type: "fixed-size", numSlots: WORKFLOW_SLOTS },
            localActivityTaskSlotSupplier: { type: "fixed-size", numSlots: TICK_SLOTS },
            nexusTaskSlotSupplier: { type: "fixed-size", numSlots: 1 },
          },
          // A poll that a frozen process holds takes a start with it, until its heartbeat is missed: no more of them than are needed.
          activityTaskPollerBehavior: { type: "autoscaling", minimum: 1, initial: 1, maximum: ACTIVITY_POLLS },
          workflowTaskPollerBehavior: { type: "simple-maximum", maximum: WORKFLOW_POLLS },
          stickyQueueScheduleToStartTimeout: STICKY_MS,
          // Ours ends before: attempts get the grace period, then are aborted and given back.
          shutdownGraceTime: "365 days",
          maxHeartbeatThrottleInterval: "1s",
          defaultHeartbeatThrottleInterval: "1s",
          ...(settings.dataConverter && { dataConverter: settings.dataConverter }),
        });
      }),
    );
    awake.watch();
    const worker = new TemporalWorker(workers, activities, slots, awake, tasksAreWorkflows);
    for (const one of workers)
      worker.#runs.push(one.run().catch((error: unknown) => runtime.log.error(`A Temporal worker ended: ${(error as Error).message}`)));
    return worker;
  }

  healthy(): boolean {
    return !this.#stopping && this.#workers.every((worker) => worker.getState() === "RUNNING");
  }

  stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#graceTimer);
    const abort = (): void => {
      for (const activities of this.#activities) activities.abortAll("shutdown");
    };
    if (graceMs === 0) abort();
    else this.#graceTimer = setTimeout(abort, Math.min(graceMs, MAX_TIMER_MS));
    this.#stopped ??= this.#finishStopping();
    return this.#stopped;
  }

  async #finishStopping(): Promise<void> {
    if (this.#tasksAreWorkflows) {
      this.#slots.close();
      await Promise.all(this.#activities.map((activities) => activities.drain()));
    }
    for (const worker of this.#workers) if (worker.getState() === "RUNNING") worker.shutdown();
    await Promise.all(this.#runs);
    this.#awake.close();
    clearTimeout(this.#graceTimer);
  }
}

/** Beside the built files, or in the build when this runs from its sources. */
function interpreterBundle(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return [join(here, "interpreter.js"), join(here, "../dist/interpreter.js")].find(existsSync) as string;
}
