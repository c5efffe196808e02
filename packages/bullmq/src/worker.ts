import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import {
  createDrive,
  Interruption,
  MAX_TIMER_MS,
  type Decision,
  type TickResult,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import type { JobJson } from "bullmq";
import { Finisher } from "./finisher.ts";
import { WorkflowJournal, type ClaimedRun } from "./journal.ts";
import { chargedStarts, fromQueue, isLost, isWorkflowQueue, previousFailure, toQueue, toRunId, type JobData } from "./mapping.ts";
import type { BullmqSettings } from "./options.ts";
import { ProgressWriter } from "./progress-writer.ts";
import { Slots } from "./slots.ts";
import type { Claim, Lane, NextJob, Store } from "./store.ts";

/** Workflow runs that one worker takes further at a time. They wait for the store, not for work. */
const MAX_TICKS = 100;
/** The longest wait for a job before asking again, as BullMQ's drain delay. */
const DRAIN_MS = 5_000;
const TROUBLE_RETRY_MS = 500;
const PRUNE_EVERY_MS = 30_000;
const PRUNE_BATCH = 1_000;
/** How much later than others a worker comes for what it has just put back: of two that wait, Redis always serves the older client. */
const STEP_ASIDE_MS = 250;
/** After the grace period of a stop, for what is under way with the store. */
const GIVE_UP_MS = 3_000;

/** What this worker has claimed. */
interface Claimed extends Claim {
  /** By the monotonic clock: when the claim was sent, at the earliest the time of its lock. */
  readonly askedAt: number;
}

interface Held {
  readonly claim: Claimed;
  readonly lane: Lane;
  readonly interruption: Interruption;
}

/** Claims, runs and settles jobs of BullMQ queues: one lane for the tasks of a queue and one for its workflows. */
export class BullmqWorker implements WorkerHandle {
  readonly #store: Store;
  readonly #settings: BullmqSettings;
  readonly #request: WorkerRequest;
  readonly #runtime: WorkerRuntime;
  readonly #finisher: Finisher;
  readonly #journal: WorkflowJournal;
  readonly #drive: (run: ClaimedRun) => Promise<TickResult | "lost">;
  readonly #lanes: Lane[];
  readonly #slots: Slots;
  readonly #ticks = new Slots(MAX_TICKS);
  /** By lane: when what this worker does not know, and has put back, was due for the others. */
  readonly #putBack = new Map<Lane, number>();
  /** By run id. */
  readonly #held = new Map<string, Held>();
  /** The last tick of each workflow run that is under way here. */
  readonly #ticking = new Map<string, Promise<void>>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #loops: Promise<void>[] = [];
  #unsubscribe: () => void = () => {};
  #stopping = false;
  #aborting = false;
  #trouble = false;
  #stopped: Promise<void> | undefined;
  #graceTimer: NodeJS.Timeout | undefined;
  #giveUpTimer: NodeJS.Timeout | undefined;
  #giveUp: () => void = () => {};
  #idle: (() => void) | undefined;

  constructor(store: Store, settings: BullmqSettings, request: WorkerRequest, runtime: WorkerRuntime) {
    this.#store = store;
    this.#settings = settings;
    this.#request = request;
    this.#runtime = runtime;
    this.#slots = new Slots(request.concurrency);
    this.#finisher = new Finisher(store);
    this.#journal = new WorkflowJournal(store);
    this.#drive = createDrive(runtime, this.#journal);
    const workflows = runtime.definitions.some((definition) => definition.kind === "workflow");
    this.#lanes = request.queues
      .flatMap((queue) => [toQueue(queue, "task"), ...(workflows ? [toQueue(queue, "workflow")] : [])])
      .map((queue) => store.lane(queue, { workerName: request.name }));
  }

  async start(): Promise<void> {
    this.#unsubscribe = await this.#store.onCancel((id) => this.#held.get(id)?.interruption.abort("cancel"));
    await Promise.all(this.#lanes.map((lane) => lane.startStalledCheck()));
    this.#every(this.#settings.lockMs / 2, () => this.#renewLocks());
    this.#every(Math.min(PRUNE_EVERY_MS, Math.max(this.#settings.retentionMs / 2, 100)), () => this.#prune());
    for (const lane of this.#lanes) this.#loops.push(this.#serve(lane, isWorkflowQueue(lane.queue) ? this.#ticks : this.#slots));
  }

  healthy(): boolean {
    return !this.#stopping && !this.#trouble && this.#store.healthy();
  }

  stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#graceTimer);
    const abort = (): void => {
      this.#aborting = true;
      this.#giveUpTimer ??= setTimeout(() => this.#giveUp(), GIVE_UP_MS);
      for (const { interruption } of this.#held.values()) interruption.abort("shutdown");
    };
    if (graceMs === 0) abort();
    else this.#graceTimer = setTimeout(abort, Math.min(graceMs, MAX_TIMER_MS));
    this.#stopped ??= this.#finishStopping();
    return this.#stopped;
  }

  // ---- claiming ----

  /** Claims from one lane for as long as the worker runs, never beyond the free slots. */
  async #serve(lane: Lane, slots: Slots): Promise<void> {
    let drained = false;
    let dueAtMs = 0;
    while (!this.#stopping) {
      try {
        await slots.available(lane);
        if (drained && !this.#stopping) {
          const next = await lane.wait(dueAtMs > 0 ? Math.min(this.#untilDue(lane, dueAtMs), DRAIN_MS) : DRAIN_MS);
          if (next !== undefined && next > Date.now()) {
            dueAtMs = next;
            continue;
          }
        }
        if (this.#stopping) {
          if (drained) await lane.passOn();
          break;
        }
        if (!slots.take()) {
          await lane.passOn();
          continue;
        }
        const token = randomUUID();
        const askedAt = performance.now();
        const answer = (await lane.backend.moveToActive(token, this.#request.name).catch((error: unknown) => {
          slots.give();
          throw error;
        })) as NextJob;
        this.#trouble = false;
        const claim = toClaim(lane, token, answer, askedAt);
        drained = !claim;
        dueAtMs = claim ? 0 : await this.#pace(answer);
        if (claim) void this.#run(lane, slots, claim);
        else slots.give();
      } catch (error) {
        if (this.#stopping) break;
        this.#trouble = true;
        this.#runtime.log.error(`Cannot claim runs of queue ${lane.queue}: ${(error as Error).message}`);
        await pause(TROUBLE_RETRY_MS);
      }
    }
  }

  #untilDue(lane: Lane, dueAtMs: number): number {
    const aside = dueAtMs <= (this.#putBack.get(lane) ?? 0) ? STEP_ASIDE_MS : 0;
    return Math.max(dueAtMs + aside - Date.now(), 1);
  }

  /** For a worker that has it: this one does not take it back at once. */
  #stepAside(lane: Lane, { delayMs }: { readonly delayMs: number }): void {
    if (delayMs > 0) this.#putBack.set(lane, Date.now() + delayMs + STEP_ASIDE_MS);
  }

  /** Waits out a rate limit. Answers when the next delayed job is due. */
  async #pace(answer: NextJob): Promise<number> {
    const [, , limitMs = 0, dueAtMs = 0] = (answer ?? []) as [unknown, unknown, number?, number?];
    if (limitMs > 0) await pause(Math.min(limitMs, DRAIN_MS));
    return limitMs > 0 ? Date.now() : dueAtMs;
  }

  /** Runs what was claimed, and what is claimed in the moment that it settles. Holds one slot. */
  async #run(lane: Lane, slots: Slots, first: Claimed): Promise<void> {
    let claim: Claimed | undefined = first;
    while (claim) {
      const id = toRunId(claim.ref);
      const held: Held = { claim, lane, interruption: new Interruption() };
      this.#held.set(id, held);
      if (this.#aborting) held.interruption.abort("shutdown");
      try {
        const workflow = this.#workflowOf(claim);
        claim = workflow ? await this.#tick(held, workflow) : await this.#attempt(held, slots);
      } finally {
        if (this.#held.get(id) === held) this.#held.delete(id);
      }
    }
    slots.give();
    this.#checkIdle();
  }

  // ---- tasks ----

  /** Answers with what was claimed in the moment that it settled. */
  async #attempt(held: Held, slots: Slots): Promise<Claimed | undefined> {
    const { claim, lane, interruption } = held;
    const { ref, json, data } = claim;
    const attempt = chargedStarts(json) + 1;
    const previous = previousFailure(json);
    if (data.kind === undefined) await this.#store.forget(ref).catch(() => {});
    let progress: ProgressWriter | undefined;
    const decision = await this.#runtime.execute({
      id: toRunId(ref),
      name: json.name,
      queue: fromQueue(lane.queue),
      attempt,
      input: data.input,
      headers: data.headers ?? {},
      ...(previous && { previousError: previous.error }),
      interruption,
      holds: () => this.#isFresh(performance.now() - claim.askedAt) || this.#ask(held),
      progress: (value) => (progress ??= new ProgressWriter((text) => this.#store.progress(claim, text))).set(value),
    });
    if (progress) await progress.flush();
    if (decision.do === "release") this.#stepAside(lane, decision);
    const fetchNext = (): boolean => !this.#stopping && !slots.wanted(lane);
    const finish = async (): Promise<Claimed | undefined> => {
      const askedAt = performance.now();
      return toClaim(lane, claim.token, await this.#finisher.finish(lane, claim, decision, fetchNext()), askedAt);
    };
    return this.#persist(held, finish, decision);
  }

  /** A process that was frozen finds the answer to its claim long after its lock is another's. */
  #isFresh(ageMs: number): boolean {
    return ageMs < this.#settings.lockMs / 2;
  }

  async #ask({ claim, lane }: Held): Promise<boolean> {
    const askedAt = performance.now();
    const lost = await lane.backend.extendLocks([claim.ref.id], [claim.token], this.#settings.lockMs).catch(() => [claim.ref.id]);
    // The answer may have come late as well.
    return lost.length === 0 && this.#isFresh(performance.now() - askedAt);
  }

  /** Writes the decision down, as long as the run is ours: trouble with the store must not lose an outcome. */
  async #persist(held: Held, write: () => Promise<Claimed | undefined>, decision: Decision): Promise<Claimed | undefined> {
    const { claim, interruption } = held;
    for (;;) {
      // Whoever cancelled it has settled it; another worker has it.
      if (interruption.reason === "lost" || (interruption.reason === "cancel" && decision.do !== "complete")) return undefined;
      try {
        return await write();
      } catch (error) {
        if (isLost(error)) return undefined;
        this.#runtime.log.error(`The outcome of run ${toRunId(claim.ref)} cannot be stored yet: ${(error as Error).message}`);
        if (this.#aborting) return undefined;
        await pause(TROUBLE_RETRY_MS);
      }
    }
  }

  // ---- workflows ----

  /** The version of the workflow that a job is, or undefined for a task. Known by name only, it is what this worker knows. */
  #workflowOf({ json, data }: Claim): { readonly version: string | undefined } | undefined {
    if (data.kind === "workflow") return { version: data.version };
    if (data.kind === "task") return undefined;
    const definition = this.#runtime.definitions.findLast((one) => one.kind === "workflow" && one.name === json.name);
    return definition && { version: definition.version };
  }

  /** One tick of a run after the other: a run that was just parked may be claimed again before its tick has come to its end here. */
  async #tick(held: Held, workflow: { readonly version: string | undefined }): Promise<undefined> {
    const id = toRunId(held.claim.ref);
    const before = this.#ticking.get(id);
    const tick = (before ?? Promise.resolve()).then(() => this.#advance(held, workflow));
    this.#ticking.set(id, tick);
    await tick;
    if (this.#ticking.get(id) === tick) this.#ticking.delete(id);
  }

  async #advance({ claim, lane }: Held, { version }: { readonly version: string | undefined }): Promise<void> {
    const { ref, json, data } = claim;
    const id = toRunId(ref);
    try {
      const run: ClaimedRun = {
        id,
        name: json.name,
        queue: fromQueue(lane.queue),
        input: data.input,
        headers: data.headers ?? {},
        startedAtMs: json.timestamp,
        ...(version !== undefined && { version }),
        lane,
        claim,
        commands: 0,
      };
      const lostTicks = await this.#journal.begin(run);
      if (lostTicks === "settled") return;
      const result = await this.#drive({ ...run, lostTicks });
      if (result !== "lost" && result.do === "release") this.#stepAside(lane, result);
    } catch (error) {
      this.#runtime.evict(id);
      // The lock is not renewed any more, so the stalled check gives the run to another worker, or to this one.
      this.#runtime.log.error(`Workflow run ${id} cannot be stored yet: ${(error as Error).message}`);
      await this.#store.postpone(claim, TROUBLE_RETRY_MS, undefined).catch(() => {});
    }
  }

  // ---- locks, and what others did ----

  async #renewLocks(): Promise<void> {
    for (const lane of this.#lanes) {
      const held = [...this.#held.values()].filter((one) => one.lane === lane);
      if (held.length === 0) continue;
      const lost = await lane.backend.extendLocks(
        held.map(({ claim }) => claim.ref.id),
        held.map(({ claim }) => claim.token),
        this.#settings.lockMs,
      );
      for (const id of lost) await this.#letGo(held.find(({ claim }) => claim.ref.id === id));
    }
  }

  /** The lock is another's by now, or gone: the run was cancelled, or this worker was away for too long. */
  async #letGo(held: Held | undefined): Promise<void> {
    if (!held || this.#held.get(toRunId(held.claim.ref)) !== held) return;
    const job = await this.#store.get(held.claim.ref);
    if (this.#held.get(toRunId(held.claim.ref)) !== held) return;
    held.interruption.abort(job?.state === "failed" ? "cancel" : "lost");
  }

  async #prune(): Promise<void> {
    for (const { backend } of this.#lanes) {
      for (const state of ["completed", "failed"]) {
        const before = Date.now() - this.#settings.retentionMs;
        while (!this.#stopping && (await backend.cleanJobsByState(state, before, PRUNE_BATCH)).length === PRUNE_BATCH) continue;
      }
    }
  }

  // ---- timers and the end ----

  #every(ms: number, work: () => Promise<void>): void {
    let atWork = false;
    const timer = setInterval(() => {
      if (atWork) return;
      atWork = true;
      work()
        .catch((error: unknown) => this.#runtime.log.warn((error as Error).message))
        .finally(() => (atWork = false));
    }, ms);
    this.#timers.add(timer);
  }

  async #finishStopping(): Promise<void> {
    this.#slots.wakeAll();
    this.#ticks.wakeAll();
    // A store that is away must not keep the process: the locks run out, and others take the runs.
    const gaveUp = new Promise<void>((resolve) => (this.#giveUp = resolve));
    await Promise.race([this.#untilIdle(), gaveUp]);
    clearTimeout(this.#graceTimer);
    for (const timer of this.#timers) clearInterval(timer);
    this.#unsubscribe();
    this.#giveUpTimer ??= setTimeout(() => this.#giveUp(), GIVE_UP_MS);
    await Promise.race([Promise.all(this.#lanes.map((lane) => lane.close().catch(() => {}))), gaveUp]);
    clearTimeout(this.#giveUpTimer);
  }

  async #untilIdle(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.interrupt().catch(() => {})));
    await Promise.all(this.#loops);
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      this.#checkIdle();
    });
  }

  #checkIdle(): void {
    if (this.#stopping && this.#held.size === 0) this.#idle?.();
  }
}

function toClaim(lane: Lane, token: string, answer: NextJob, askedAt: number): Claimed | undefined {
  const [json, id] = (answer ?? []) as [JobJson | null | undefined, string | undefined];
  return json && id ? { ref: { queue: lane.queue, id }, token, askedAt, json, data: JSON.parse(json.data) as JobData } : undefined;
}
