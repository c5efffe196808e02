import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { IdempotencyCollisionError } from "@hatchet-dev/typescript-sdk/util/errors/idempotency-collision-error.js";
import { BackendUnavailableError, mapInLanes, type RunRequest, type SubmitOutcome } from "@task-backend/core/adapter";
import type { Accepted } from "./accepted.ts";
import { isBusy, isInternal, toUnavailable } from "./errors.ts";
import { labelsOf } from "./labels.ts";
import { Lanes } from "./lanes.ts";
import { refuseNativeOfSubmission } from "./native.ts";
import { hatchetName, KEY, keyOf, type Registry } from "./registry.ts";
import type { Waits } from "./waits.ts";
import { META, toInput, toMeta, toPriority } from "./wire.ts";

/** How many starts are under way at a time, of many submitted together. */
const SUBMIT_LANES = 50;
/** The server queues no keyed run: it starts it at once, in one of few slots that all its clients share, or refuses it. */
const KEYED_LANES = 8;
/** A start that gave way to others comes back, and each time later. Less together than core waits for a call. */
const AGAIN_FIRST_MS = 50;
const AGAIN_MAX_MS = 1_600;
const AGAIN_FOR_MS = 8_000;

/** What is submitted from here. */
export class Submissions {
  readonly #client: HatchetClient;
  readonly #registry: Registry;
  readonly #accepted: Accepted;
  readonly #waits: Waits;
  readonly #where: string;
  readonly #keyed = new Lanes(KEYED_LANES);
  /** Keyed runs that are being started from here: of many calls with one key, the first asks the server. */
  readonly #starting = new Map<string, Promise<string>>();

  constructor(client: HatchetClient, registry: Registry, accepted: Accepted, waits: Waits, where: string) {
    this.#client = client;
    this.#registry = registry;
    this.#accepted = accepted;
    this.#waits = waits;
    this.#where = where;
  }

  /** Per item. @throws BackendUnavailableError when that holds for all of them */
  async submit(runs: readonly RunRequest[]): Promise<readonly SubmitOutcome[]> {
    const outcomes = await mapInLanes(runs, SUBMIT_LANES, (run) =>
      this.#submit(run, "").catch((error: unknown) => ({ error: toUnavailable(error, this.#where) })),
    );
    const [first] = outcomes;
    const isAway = (outcome: SubmitOutcome): boolean => "error" in outcome && outcome.error instanceof BackendUnavailableError;
    if (first && "error" in first && outcomes.every(isAway)) throw first.error;
    return outcomes;
  }

  /** @param after the run whose key it follows: past the retention that was asked for the key is free again */
  async #submit(request: RunRequest, after: string): Promise<SubmitOutcome> {
    refuseNativeOfSubmission(request);
    const key = keyOf(request);
    await this.#registry.ensure(request, key !== undefined);
    if (key === undefined) return this.#known(await again(() => this.#start(request)), request, false);
    const place = `${key}${after}`;
    const before = this.#starting.get(place);
    const started = before ?? this.#keyed.run(() => again(() => this.#start(request, place)));
    if (!before) this.#starting.set(place, started);
    try {
      return this.#known(await started, request, before !== undefined);
    } catch (error) {
      if (!(error instanceof IdempotencyCollisionError)) throw error;
      const { existingRunExternalId: id } = error;
      return (await this.#waits.read(id)) ? { id, deduplicated: true } : this.#submit(request, `${after}.${id}`);
    } finally {
      if (this.#starting.get(place) === started) this.#starting.delete(place);
    }
  }

  #known(id: string, { name }: RunRequest, deduplicated: boolean): SubmitOutcome {
    this.#accepted.add(id, name);
    return { id, deduplicated };
  }

  async #start(request: RunRequest, key?: string): Promise<string> {
    const meta = toMeta(request, this.#client.config.namespace ?? "");
    const run = await this.#client.admin.runWorkflow(hatchetName(request.name, key !== undefined), toInput(request), {
      additionalMetadata: { [META]: JSON.stringify(meta), ...(key !== undefined && { [KEY]: key }) },
      priority: toPriority(request.priority),
      desiredWorkerLabels: Object.fromEntries(labelsOf(request).map((label) => [label, { value: 1, required: true }])),
    });
    return run.getWorkflowRunId();
  }
}

/** Two of one key, or of a new name, at the same moment: one transaction gives way. More keyed ones than the server has slots for: all but those. */
async function again<T>(start: () => Promise<T>): Promise<T> {
  const lateMs = performance.now() + AGAIN_FOR_MS;
  for (let waitMs = AGAIN_FIRST_MS; ; waitMs = Math.min(2 * waitMs, AGAIN_MAX_MS)) {
    try {
      return await start();
    } catch (error) {
      if (!(isInternal(error) || isBusy(error)) || performance.now() + waitMs > lateMs) throw error;
      // Those that collide must not come back at the same moment.
      await pause(waitMs * (0.5 + Math.random()));
    }
  }
}
