import {
  corruptRecord,
  createDrive,
  Intervals,
  Shutdown,
  storeOutcome,
  type Decision,
  type ErrorRecord,
  type TickResult,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { faultOf, isLost } from "./errors.ts";
import { Finisher } from "./finisher.ts";
import { HeldRuns, type HeldRun } from "./held-runs.ts";
import { fromQueue, isWorkflowQueue, toQueue, toRef, toRunId } from "./ids.ts";
import { WorkflowJournal, type ClaimedRun } from "./journal.ts";
import { LaneLoop, TROUBLE_RETRY_MS } from "./lane-loop.ts";
import { chargedStarts, fromPriority, previousFailure } from "./mapping.ts";
import type { BullmqSettings } from "./options.ts";
import { ProgressWriter } from "./progress-writer.ts";
import { Slots } from "./slots.ts";
import { toClaim, type Claim, type Lane, type Store } from "./store.ts";

/** The number of workflow runs in one worker at a time. They wait for the store, not for work. */
const MAX_TICKS = 100;
const PRUNE_EVERY_MS = 30_000;
const PRUNE_BATCH = 1_000;
/** How long a stop waits for the store after the grace period. */
const GIVE_UP_MS = 3_000;

/** One lane of this worker. */
interface Served {
  readonly lane: Lane;
  readonly slots: Slots;
  readonly loop: LaneLoop;
}

/** A run, with the lane that it came from. */
type Held = HeldRun & Served;

/** Claims, runs and settles jobs of BullMQ queues: one lane for the tasks of a queue and one for its workflows. */
export class BullmqWorker implements WorkerHandle {
  readonly #store: Store;
  readonly #settings: BullmqSettings;
  readonly #runtime: WorkerRuntime;
  readonly #finisher: Finisher;
  readonly #journal: WorkflowJournal;
  readonly #drive: (run: ClaimedRun) => Promise<TickResult | "lost">;
  readonly #served: readonly Served[];
  readonly #slots: readonly [tasks: Slots, ticks: Slots];
  readonly #held: HeldRuns;
  /** The last tick of each workflow run that has one under way here. */
  readonly #ticking = new Map<string, Promise<void>>();
  readonly #intervals: Intervals;
  readonly #shutdown: Shutdown;
  /** Aborted when the worker stops claiming. */
  readonly #ending = new AbortController();
  #loops: Promise<unknown> = Promise.resolve();
  #unsubscribe: () => void = () => {};
  #trouble = false;
  #giveUpTimer: NodeJS.Timeout | undefined;
  #giveUp: () => void = () => {};
  #idle: (() => void) | undefined;

  constructor(store: Store, settings: BullmqSettings, request: WorkerRequest, runtime: WorkerRuntime) {
    this.#store = store;
    this.#settings = settings;
    this.#runtime = runtime;
    this.#slots = [new Slots(request.concurrency), new Slots(MAX_TICKS)];
    this.#held = new HeldRuns(store, settings.lockMs);
    this.#intervals = new Intervals(runtime.log);
    this.#shutdown = new Shutdown({
      abort: () => {
        this.#held.shutDown();
        this.#giveUpSoon();
      },
      finish: () => this.#finishStopping(),
    });
    this.#finisher = new Finisher(store);
    this.#journal = new WorkflowJournal(store);
    this.#drive = createDrive(runtime, this.#journal);
    const workflows = runtime.definitions.some((definition) => definition.kind === "workflow");
    this.#served = request.queues
      .flatMap((queue) => [toQueue(queue, "task"), ...(workflows ? [toQueue(queue, "workflow")] : [])])
      .map((queue) => this.#serve(store.lane(queue, { workerName: request.name })));
  }

  #serve(lane: Lane): Served {
    const slots = this.#slots[isWorkflowQueue(lane.queue) ? 1 : 0];
    const loop = new LaneLoop({
      lane,
      slots,
      log: this.#runtime.log,
      ending: this.#ending.signal,
      onClaim: (claim) => void this.#run({ lane, slots, loop }, claim),
      onTrouble: (trouble) => (this.#trouble = trouble),
    });
    return { lane, slots, loop };
  }

  /** @throws the errors of the store; nothing is left of the worker then */
  async start(): Promise<void> {
    try {
      // A message says that this worker may have lost a run.
      this.#unsubscribe = await this.#store.onCancel((id) => void this.#held.lookAt(id).catch(() => {}));
      await Promise.all(this.#served.map(({ lane }) => lane.start()));
    } catch (error) {
      await this.stop(0).catch(() => {});
      throw error;
    }
    if (this.#ending.signal.aborted) return;
    this.#runtime.onStray((id) => void this.#wake(id));
    this.#intervals.every(this.#settings.lockMs / 2, "renew the locks of runs", () =>
      this.#held.renewLocks(this.#served.map(({ lane }) => lane)),
    );
    const pruneMs = Math.min(PRUNE_EVERY_MS, Math.max(this.#settings.retentionMs / 2, 100));
    this.#intervals.every(pruneMs, "prune settled runs", () => this.#prune());
    this.#loops = Promise.all(this.#served.map(({ loop }) => loop.run()));
  }

  healthy(): boolean {
    return !this.#ending.signal.aborted && !this.#trouble && this.#store.healthy();
  }

  stop(graceMs: number): Promise<void> {
    this.#ending.abort();
    return this.#shutdown.stop(graceMs);
  }

  // ---- running ----

  /** Runs a claimed job, and then each job that is claimed while the previous one settles. It holds one slot. */
  async #run(served: Served, first: Claim): Promise<void> {
    try {
      for (let claim: Claim | undefined = first; claim;) claim = await this.#hold(served, claim);
    } finally {
      served.slots.give();
      this.#checkIdle();
    }
  }

  async #hold(served: Served, claim: Claim): Promise<Claim | undefined> {
    const id = toRunId(claim.ref);
    const held = this.#held.add(served.lane, claim);
    if (this.#shutdown.aborting) held.interruption.abort("shutdown");
    else this.#goOn();
    try {
      return await this.#execute({ ...served, ...held });
    } catch (error) {
      // The lock is no longer renewed, so after the stalled check this or another worker claims the run.
      this.#runtime.log.error(`Run ${id} is left to the next worker: ${(error as Error).message}`);
      return undefined;
    } finally {
      this.#held.delete(held);
    }
  }

  async #execute(held: Held): Promise<Claim | undefined> {
    const { claim } = held;
    if (claim.damage) {
      await this.#fail(held, corruptRecord(`Run "${toRunId(claim.ref)}"`, claim.damage));
      return undefined;
    }
    const workflow = this.#workflowOf(claim);
    return workflow ? this.#tick(held, workflow) : this.#attempt(held);
  }

  /** Settles a run that cannot go on, task or workflow, so that it does not block others. */
  async #fail({ lane, claim }: Held, error: ErrorRecord): Promise<void> {
    const id = toRunId(claim.ref);
    this.#runtime.evict(id);
    this.#runtime.log.error(`Run ${id} has failed: ${error.message}`, { run: id, queue: fromQueue(lane.queue), code: error.code });
    await this.#journal.fail(lane, claim, error);
  }

  // ---- tasks ----

  /** Returns the claim that was made while the run settled. */
  async #attempt(held: Held): Promise<Claim | undefined> {
    const { claim, lane, interruption } = held;
    const { ref, json, data } = claim;
    const previous = previousFailure(json);
    if (data.kind === undefined && this.#isTaskHere(json.name)) await this.#store.markTask(ref).catch(() => {});
    let progress: ProgressWriter | undefined;
    const decision = await this.#runtime.execute({
      id: toRunId(ref),
      name: json.name,
      queue: fromQueue(lane.queue),
      attempt: chargedStarts(json) + 1,
      input: data.input,
      headers: data.headers ?? {},
      ...(previous && { previousError: previous.error }),
      interruption,
      holds: () => this.#held.isOurs(held),
      progress: (value) => (progress ??= new ProgressWriter((text) => this.#store.progress(claim, text))).set(value),
    });
    if (progress) await progress.flush();
    if (decision.do === "release") held.loop.stepAside(decision.delayMs);
    return this.#persist(held, decision);
  }

  #isTaskHere(name: string): boolean {
    return this.#runtime.definitions.some((one) => one.kind === "task" && one.name === name);
  }

  #persist(held: Held, decided: Decision): Promise<Claim | undefined> {
    const { claim, interruption } = held;
    const what = `run "${toRunId(claim.ref)}" of "${claim.json.name}"`;
    return storeOutcome<Claim | undefined>(decided, {
      what,
      log: this.#runtime.log,
      write: (decision) =>
        this.#finish(held, decision).catch((error: unknown) => (isLost(error) ? undefined : Promise.reject(error as Error))),
      // A cancelled run has been settled by its canceller, and a lost one belongs to another worker.
      isWanted: ({ do: answer }) => interruption.reason !== "lost" && (interruption.reason !== "cancel" || answer === "complete"),
      givesUp: () => this.#shutdown.aborting,
      refusal: (error) => faultOf(error, `the outcome of ${what}`),
    });
  }

  async #finish({ lane, slots, claim }: Held, decision: Decision): Promise<Claim | undefined> {
    const askedAt = performance.now();
    const fetchNext = !this.#ending.signal.aborted && !slots.wanted(lane);
    return toClaim(lane, claim.token, await this.#finisher.finish(lane, claim, decision, fetchNext), askedAt);
  }

  // ---- workflows ----

  /** The version of a workflow's job; undefined for a task. If the job was submitted by name only, this worker's definition decides. */
  #workflowOf({ json, data }: Claim): { readonly version: string | undefined } | undefined {
    if (data.kind === "workflow") return { version: data.version };
    if (data.kind === "task") return undefined;
    const definition = this.#runtime.definitions.findLast((one) => one.kind === "workflow" && one.name === json.name);
    return definition && { version: definition.version };
  }

  /** Executes the ticks of a run one after another: a parked run may be claimed again before its last tick has ended here. */
  async #tick(held: Held, workflow: { readonly version: string | undefined }): Promise<undefined> {
    const id = toRunId(held.claim.ref);
    const before = this.#ticking.get(id);
    const tick = (before ?? Promise.resolve()).then(() => this.#advance(held, workflow));
    this.#ticking.set(id, tick);
    await tick;
    if (this.#ticking.get(id) === tick) this.#ticking.delete(id);
  }

  async #advance(held: Held, { version }: { readonly version: string | undefined }): Promise<void> {
    const { claim, lane, loop } = held;
    const { ref, json, data } = claim;
    const id = toRunId(ref);
    try {
      const run: ClaimedRun = {
        id,
        name: json.name,
        queue: fromQueue(lane.queue),
        input: data.input,
        headers: data.headers ?? {},
        priority: fromPriority(json.priority),
        startedAtMs: json.timestamp,
        ...(version !== undefined && { version }),
        lane,
        claim,
        commands: 0,
      };
      const lostTicks = await this.#journal.begin(run);
      if (lostTicks === "settled") return;
      const result = await this.#drive({ ...run, lostTicks });
      if (result !== "lost" && result.do === "release") loop.stepAside(result.delayMs);
    } catch (error) {
      this.#runtime.evict(id);
      const fault = faultOf(error, `what workflow run "${id}" asked for`);
      const failed =
        fault &&
        (await this.#fail(held, fault).then(
          () => true,
          () => false,
        ));
      if (failed) return;
      this.#runtime.log.error(`Workflow run ${id} cannot be stored yet: ${(error as Error).message}`);
      // If that fails as well, the lock is no longer renewed, and after the stalled check this or another worker claims the run.
      await this.#store.postpone(claim, TROUBLE_RETRY_MS, undefined).catch(() => {});
    }
  }

  /** Asks for a tick of a live run, after the tick under way has parked it. */
  async #wake(id: string): Promise<void> {
    await this.#ticking.get(id);
    const ref = toRef(id);
    if (ref && !this.#ending.signal.aborted)
      await this.#store.wake(ref).catch((error: unknown) => this.#runtime.log.warn(`Cannot wake run ${id}: ${(error as Error).message}`));
  }

  // ---- timers and the end ----

  async #prune(): Promise<void> {
    for (const { lane } of this.#served) {
      for (const state of ["completed", "failed"]) {
        const before = Date.now() - this.#settings.retentionMs;
        while (!this.#ending.signal.aborted && (await lane.backend.cleanJobsByState(state, before, PRUNE_BATCH)).length === PRUNE_BATCH)
          continue;
      }
    }
  }

  async #finishStopping(): Promise<void> {
    for (const slots of this.#slots) slots.close();
    // An unreachable store must not keep the process alive: the locks expire, and other workers get the runs.
    const gaveUp = new Promise<void>((resolve) => (this.#giveUp = resolve));
    if (this.#shutdown.aborting) this.#giveUpSoon();
    this.#checkIdle();
    await Promise.race([this.#untilIdle(), gaveUp]);
    this.#intervals.stop();
    this.#unsubscribe();
    this.#giveUpSoon();
    await Promise.race([Promise.all(this.#served.map(({ lane }) => lane.close().catch(() => {}))), gaveUp]);
    clearTimeout(this.#giveUpTimer);
  }

  #goOn(): void {
    clearTimeout(this.#giveUpTimer);
    this.#giveUpTimer = undefined;
  }

  #giveUpSoon(): void {
    this.#giveUpTimer ??= setTimeout(() => this.#giveUp(), GIVE_UP_MS);
  }

  async #untilIdle(): Promise<void> {
    await Promise.all(this.#served.map(({ lane }) => lane.interrupt().catch(() => {})));
    await this.#loops;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      this.#checkIdle();
    });
  }

  #checkIdle(): void {
    if (!this.#ending.signal.aborted || this.#held.size > 0) return;
    // Only the answer to the last claim may still be missing, and an unreachable store never gives it.
    this.#giveUpSoon();
    this.#idle?.();
  }
}
