import { createHash } from "node:crypto";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { workflowToProto } from "@hatchet-dev/typescript-sdk/v1/client/worker/workflow-proto.js";
import type { BaseWorkflowDeclaration } from "@hatchet-dev/typescript-sdk/v1/declaration.js";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import type { DefinitionSpec, RunRequest } from "@task-backend/core/adapter";
import { putWorkflow } from "./client.ts";
import { LEASE } from "./leases.ts";
import { nativeOf } from "./native.ts";

/** Core decides when an attempt is over; the engine's own limits are so wide that they are never reached. */
const NET = "87600h";

/** How often a run may be released. */
const RELEASES = 1_000_000;
/** The pause before a released run starts again, so that it does not return to a worker that is about to stop. */
const LEAVES_S = 2;
/** The slots of an attempt. One would not work: the engine drops its supposed default, and then uses the pool of the workflows. */
export const ATTEMPT_SLOTS = 2;

export type Run = (context: DurableContext<object>) => Promise<object>;
export type Declaration = BaseWorkflowDeclaration<never, never>;

/**
 * Hatchet's name of a task or workflow, in the characters that it allows. Runs with idempotency keys use a second name: an
 * expression of its registration computes the key, and every run of that name must have one.
 */
export function hatchetName(name: string, keyed: boolean): string {
  const allowed = name.toLowerCase().replaceAll(/[^a-z0-9.\-_]/g, "-");
  // The SDK stores the data of a run in an object, under the task's name.
  return `${allowed === "__proto__" ? "--proto--" : allowed}${keyed ? ".keyed" : ""}`;
}

/** The key in the metadata of keyed runs. */
export const KEY = "taskBackendKey";

export function keyOf({ name, queue, idempotencyKey }: RunRequest): string | undefined {
  if (idempotencyKey === undefined) return undefined;
  return createHash("sha256")
    .update(JSON.stringify([name, queue, idempotencyKey]))
    .digest("hex");
}

/** Declares a task or workflow: the same for every process, so that no registration changes another. */
export function declare(
  client: HatchetClient,
  { kind, name, native }: Pick<DefinitionSpec, "kind" | "name" | "native">,
  keyed: boolean,
  retentionMs: number,
  run: Run,
): Declaration {
  const { rateLimits, ...ofWorkflow } = nativeOf({ native });
  const workflow = client.workflow({
    ...ofWorkflow,
    name: hatchetName(name, keyed),
    ...(keyed && { idempotency: { expression: `additional_metadata.${KEY}`, strategy: "ttl", ttlMs: retentionMs } }),
  } as never);
  workflow.durableTask({
    name: hatchetName(name, false),
    // A final failure says so itself: these retries are for released runs.
    retries: RELEASES,
    backoff: { factor: 2, maxSeconds: LEAVES_S },
    executionTimeout: LEASE,
    scheduleTimeout: NET,
    // Only attempts take slots; workflows have their own pool.
    slotRequests: kind === "task" ? { default: ATTEMPT_SLOTS } : { durable: 1 },
    // Our own eviction notes what a run has seen when it is left to the engine.
    evictionPolicy: { allowCapacityEviction: false },
    // The engine reads them only from the task.
    ...(rateLimits && { rateLimits }),
    fn: (_input: object, context: DurableContext<object>) => run(context),
  } as never);
  return workflow as unknown as Declaration;
}

/** Registers names before runs are submitted: Hatchet silently drops runs of unknown names. */
export class Registry {
  readonly #client: HatchetClient;
  readonly #retentionMs: number;
  readonly #known = new Map<string, Promise<void>>();

  constructor(client: HatchetClient, retentionMs: number) {
    this.#client = client;
    this.#retentionMs = retentionMs;
  }

  ensure({ kind, name, definition, version }: RunRequest, keyed: boolean): Promise<void> {
    const hatchet = hatchetName(name, keyed);
    let known = this.#known.get(hatchet);
    if (!known) {
      // If only the name is known, a worker's registration must not be replaced.
      const certain = definition !== undefined || version !== undefined;
      known = certain ? this.#put({ kind, name, native: definition?.native }, keyed) : this.#putIfAbsent(name, keyed);
      known.catch(() => this.#known.delete(hatchet));
      this.#known.set(hatchet, known);
    }
    return known;
  }

  async #put(definition: Pick<DefinitionSpec, "kind" | "name" | "native">, keyed: boolean): Promise<void> {
    const declaration = declare(this.#client, definition, keyed, this.#retentionMs, () => Promise.resolve({}));
    const { namespace } = this.#client.config;
    const proto = workflowToProto(declaration.definition, namespace ? { namespace } : {});
    await putWorkflow(this.#client, proto);
  }

  async #putIfAbsent(name: string, keyed: boolean): Promise<void> {
    const hatchet = `${this.#client.config.namespace ?? ""}${hatchetName(name, keyed)}`;
    const { data } = await this.#client.api.workflowList(this.#client.tenantId, { name: hatchet });
    if (!data.rows?.some((row) => row.name === hatchet)) await this.#put({ kind: "task", name }, keyed);
  }
}
