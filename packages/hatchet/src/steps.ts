import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { RunRequest } from "@task-backend/core/adapter";
import { Accepted } from "./accepted.ts";
import type { Child, DurableLog, Spawned } from "./durable-log.ts";
import { labelsOf } from "./labels.ts";
import { hatchetName, KEY, type Registry } from "./registry.ts";
import { cancelRun } from "./sent.ts";
import { isObject, META, toInput, toMeta, toPriority, type Meta } from "./wire.ts";

/** The key of the metadata in which Hatchet keeps a child's parent. */
const PARENT = "hatchet__parent_workflow_run_id";
const MAX_LISTED = 1_000;

/** The unsettled steps of a workflow's run: child runs in its log, by the numbers of their commands. */
export class Steps {
  readonly #client: HatchetClient;
  readonly #registry: Registry;
  readonly #log: DurableLog;
  readonly #accepted = new Accepted();
  readonly #unsettled = new Map<number, Spawned>();

  constructor(client: HatchetClient, registry: Registry, log: DurableLog) {
    this.#client = client;
    this.#registry = registry;
    this.#log = log;
  }

  /** @param atMs must be the same in each invocation, like everything in the log */
  async start(n: number, run: RunRequest, atMs: number): Promise<Spawned> {
    await this.#registry.ensure(run, false);
    const meta: Meta = { ...toMeta(run, this.#client.config.namespace ?? ""), submittedAtMs: atMs };
    const child: Child = {
      name: hatchetName(run.name, false),
      input: toInput(run),
      // A child inherits all metadata of its parent that it does not set itself.
      metadata: { [META]: JSON.stringify(meta), [KEY]: "" },
      priority: toPriority(run.priority),
      labels: Object.fromEntries(labelsOf(run).map((label) => [label, { intValue: 1, required: true as const }])),
    };
    const spawned = await this.#log.spawn(child);
    this.#unsettled.set(n, spawned);
    this.#accepted.add(spawned.id, run.name);
    return spawned;
  }

  settled(n: number): void {
    this.#unsettled.delete(n);
  }

  async cancel(n: number): Promise<void> {
    const step = this.#unsettled.get(n);
    if (step) await cancelRun(this.#client, step.id, this.#accepted);
  }

  async cancelAll(): Promise<void> {
    await Promise.all([...this.#unsettled.keys()].map((n) => this.cancel(n)));
  }

  /** Cancels the steps of earlier invocations that the server lists: for a run that ends before it has replayed them. */
  async cancelEarlier(parentId: string): Promise<void> {
    const { rows } = await this.#client.runs.list({
      additionalMetadata: { [PARENT]: parentId },
      statuses: ["QUEUED", "RUNNING"] as never,
      onlyTasks: true,
      includePayloads: false,
      since: new Date(0),
      limit: MAX_LISTED,
    });
    // The rows are filtered again, because a server that does not know the filter returns all runs.
    const children = rows.filter(({ additionalMetadata }) => isObject(additionalMetadata) && additionalMetadata[PARENT] === parentId);
    await Promise.all(children.map(({ taskExternalId }) => cancelRun(this.#client, taskExternalId, this.#accepted)));
  }
}
