import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import type { WorkerRuntime } from "@task-backend/core/adapter";
import { Driver, Leaving, Parked } from "./driver.ts";
import { isNonDeterminism } from "./durable-log.ts";
import { putNote } from "./notes.ts";
import type { Registry } from "./registry.ts";
import { metaOf, type Returned } from "./wire.ts";

/** How long a worker that stops takes to give back its runs. */
const LEAVE_MS = 5_000;

/** The workflows of a worker. */
export class Workflows {
  readonly #runtime: WorkerRuntime;
  readonly #client: HatchetClient;
  readonly #registry: Registry;
  readonly #live = new Map<Driver, Promise<unknown>>();
  #leave = (): void => {};
  readonly #leaving = new Promise<void>((resolve) => (this.#leave = resolve));

  constructor(runtime: WorkerRuntime, client: HatchetClient, registry: Registry) {
    this.#runtime = runtime;
    this.#client = client;
    this.#registry = registry;
  }

  async run(name: string, version: string | undefined, context: DurableContext<object>): Promise<Returned> {
    const runId = context.workflowRunId();
    const meta = metaOf(context.additionalMetadata(), name);
    const driver = new Driver(this.#runtime, this.#client, this.#registry, context, {
      ...meta,
      ...(meta.version === undefined && version !== undefined && { version }),
    });
    const running = this.#drive(driver);
    this.#live.set(driver, running);
    try {
      return await running;
    } finally {
      this.#live.delete(driver);
      driver.end();
      this.#runtime.evict(runId);
    }
  }

  async #drive(driver: Driver): Promise<Returned> {
    try {
      return await driver.run();
    } catch (error) {
      if (isNonDeterminism(error)) return await this.#park(driver, driver.differs(error));
      if (error instanceof Parked) return await this.#park(driver, error);
      if (error instanceof Leaving) return await driver.log.giveBack(this.#client, error.message);
      throw error;
    }
  }

  /** Gives a run back that only other code can go on with, after a while. */
  async #park(driver: Driver, { error, delayMs }: Parked): Promise<never> {
    const line = error ? `waits for other code: ${error.message}` : "waits for a worker that knows it";
    await putNote(this.#client, driver.id, line, { type: "parked", ...(error && { error }) });
    await Promise.race([pause(delayMs), this.#leaving]);
    return driver.log.giveBack(this.#client, line);
  }

  /** Gives all back: others go on with them. */
  async leave(): Promise<void> {
    this.#leave();
    for (const driver of this.#live.keys()) driver.leave("the worker stops");
    const left = Promise.allSettled(this.#live.values());
    await Promise.race([left, pause(LEAVE_MS, undefined, { ref: false })]);
  }
}
