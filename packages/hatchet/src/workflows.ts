import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import type { WorkerRuntime } from "@task-backend/core/adapter";
import { Driver } from "./driver.ts";
import { isNonDeterminism } from "./durable-log.ts";
import { corrupt, orGiveUp } from "./give-up.ts";
import { Leaving, Parked } from "./halts.ts";
import { putNote } from "./notes.ts";
import type { Registry } from "./registry.ts";
import { readMeta, type Returned } from "./wire.ts";

/** How long a stopping worker waits for the release of its runs. */
const LEAVE_MS = 5_000;

/** The workflows of a worker. */
export class Workflows {
  readonly #runtime: WorkerRuntime;
  readonly #client: HatchetClient;
  readonly #registry: Registry;
  readonly #live = new Map<Driver, Promise<unknown>>();
  /** The drivers by core's ids of their runs. */
  readonly #byId = new Map<string, Driver>();
  #isLeaving = false;
  #leave = (): void => {};
  readonly #leaving = new Promise<void>((resolve) => (this.#leave = resolve));

  constructor(runtime: WorkerRuntime, client: HatchetClient, registry: Registry) {
    this.#runtime = runtime;
    this.#client = client;
    this.#registry = registry;
    runtime.onStray((id) => this.#byId.get(id)?.nudge());
  }

  /** @param version the version that this worker has */
  async run(name: string, version: string | undefined, context: DurableContext<object>): Promise<Returned> {
    const id = context.workflowRunId();
    const { meta, damage } = readMeta(context.additionalMetadata(), name);
    if (damage) throw corrupt(id, name, damage);
    const driver = new Driver(this.#runtime, this.#client, this.#registry, context, meta, version);
    const running = orGiveUp(this.#client, driver.id, meta.name, () => this.#drive(driver));
    this.#live.set(driver, running);
    this.#byId.set(id, driver);
    // The run came when the worker was about to stop.
    if (this.#isLeaving) driver.leave("the worker stops");
    try {
      return await running;
    } finally {
      this.#live.delete(driver);
      driver.end();
      if (this.#byId.get(id) === driver) {
        this.#byId.delete(id);
        this.#runtime.evict(id);
      }
    }
  }

  async #drive(driver: Driver): Promise<Returned> {
    try {
      return await driver.run().catch((error: unknown) => {
        if (isNonDeterminism(error)) return driver.endDiffering(error);
        throw error;
      });
    } catch (error) {
      if (error instanceof Parked) return await this.#park(driver, error);
      if (error instanceof Leaving) return await driver.log.release(this.#client, error.message);
      throw error;
    }
  }

  /** Releases, after a while, a run that only other code can continue. */
  async #park(driver: Driver, { error, delayMs }: Parked): Promise<never> {
    const line = error ? `waits for other code: ${error.message}` : "waits for a worker that knows it";
    await putNote(this.#client, driver.id, line, { type: "parked", ...(error && { error }) });
    const over = new AbortController();
    // A note that comes meanwhile may be a cancellation.
    await Promise.race([pause(delayMs, undefined, { signal: over.signal }).catch(() => {}), this.#leaving, driver.news()]);
    over.abort();
    return driver.log.release(this.#client, line);
  }

  /** Releases all runs: other workers continue them. */
  async leave(): Promise<void> {
    this.#isLeaving = true;
    this.#leave();
    for (const driver of this.#live.keys()) driver.leave("the worker stops");
    const over = new AbortController();
    const late = pause(LEAVE_MS, undefined, { signal: over.signal }).catch(() => {});
    await Promise.race([Promise.allSettled(this.#live.values()), late]);
    over.abort();
  }
}
