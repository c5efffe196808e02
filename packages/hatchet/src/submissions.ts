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

/** The number of starts under way at a time when many runs are submitted together. */
const SUBMIT_LANES = 50;
/** The number of keyed starts at a time. The server does not queue them: it has few slots for them, and refuses when all are taken. */
const KEYED_LANES = 8;
/** The pauses before a start is tried again grow to the maximum. Together they are shorter than core's limit for a call. */
const AGAIN_FIRST_MS = 50;
const AGAIN_MAX_MS = 1_600;
const AGAIN_FOR_MS = 8_000;

/** The submissions of this backend. */
export class Submissions {
  readonly #client: HatchetClient;
  readonly #registry: Registry;
  readonly #accepted: Accepted;
  readonly #waits: Waits;
  readonly #where: string;
  readonly #keyed = new Lanes(KEYED_LANES);
  /** Keyed runs that are being started here: of several calls with one key, only the first asks the server. */
  readonly #starting = new Map<string, Promise<string>>();

  constructor(client: HatchetClient, registry: Registry, accepted: Accepted, waits: Waits, where: string) {
    this.#client = client;
    this.#registry = registry;
    this.#accepted = accepted;
    this.#waits = waits;
    this.#where = where;
  }

  /** Submits runs, each with its own outcome. @throws BackendUnavailableError when all of them fail with it */
  async submit(runs: readonly RunRequest[]): Promise<readonly SubmitOutcome[]> {
    const outcomes = await mapInLanes(runs, SUBMIT_LANES, (run) =>
      this.#submit(run, "").catch((error: unknown) => ({ error: toUnavailable(error, this.#where) })),
    );
    const [first] = outcomes;
    const isAway = (outcome: SubmitOutcome): boolean => "error" in outcome && outcome.error instanceof BackendUnavailableError;
    if (first && "error" in first && outcomes.every(isAway)) throw first.error;
    return outcomes;
  }

  /** @param after the run that had the key before: after the configured retention the key is free again */
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

/** Retries a start whose transaction was rolled back, because another used the key or new name, or that found no free slot. */
async function again<T>(start: () => Promise<T>): Promise<T> {
  const lateMs = performance.now() + AGAIN_FOR_MS;
  for (let waitMs = AGAIN_FIRST_MS; ; waitMs = Math.min(2 * waitMs, AGAIN_MAX_MS)) {
    try {
      return await start();
    } catch (error) {
      if (!(isInternal(error) || isBusy(error)) || performance.now() + waitMs > lateMs) throw error;
      // Starts that collided must not be retried at the same moment.
      await pause(waitMs * (0.5 + Math.random()));
    }
  }
}
