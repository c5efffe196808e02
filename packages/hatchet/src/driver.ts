import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import {
  type Command,
  type ErrorRecord,
  type JournalEntry,
  type RunRequest,
  type TickResult,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { DurableLog, type Child, type Completion, type Spawned } from "./durable-log.ts";
import { putNote } from "./notes.ts";
import { outcomeOf } from "./mapping.ts";
import { Accepted } from "./accepted.ts";
import { cancelRun } from "./cancel.ts";
import { hatchetName, type Registry } from "./registry.ts";
import { fromInput, META, toInput, toMeta, toPriority, toThrown, wakeKey, type Meta, type Returned, type Wake } from "./wire.ts";
import { readWakes, sendWake, type ReadWake } from "./wakes.ts";
import { labelsOf } from "./labels.ts";

/** When a run looks for what was sent before it listened, or is not in the server's list yet, which may lag behind by far under load. */
const LOOKS_MS = [1_000, 5_000, 20_000, 60_000] as const;
/** How far the server's list of events may lag behind. */
const LAGS_MS = 500;
/** A run that waits for longer than this is given back to the engine. */
const IDLE_MS = 60_000;

/** The worker stops. */
export class Leaving extends Error {}

/** A tick that has to be asked again elsewhere, or later. */
export class Parked extends Error {
  constructor(
    readonly error: ErrorRecord | undefined,
    readonly delayMs: number,
  ) {
    super(error?.message);
  }
}

/** One invocation of a workflow run: asks core what comes next, and carries it out in Hatchet's log. */
export class Driver {
  readonly log: DurableLog;
  readonly #runtime: WorkerRuntime;
  readonly #client: HatchetClient;
  readonly #registry: Registry;
  readonly #context: DurableContext<object>;
  readonly #meta: Meta;
  readonly #journal: JournalEntry[] = [];
  readonly #steps = new Map<number, Spawned>();
  readonly #accepted = new Accepted();
  readonly #cancelledSteps = new Set<number>();
  readonly #dedupeIds = new Set<string>();
  readonly #timers: NodeJS.Timeout[] = [];
  #nowMs: number;
  readonly #wakes = new Set<string>();
  #cancelled = false;
  #fed = 0;
  #commandsSeen = 0;
  /** What has happened and was not acted on, in the order that each invocation sees. */
  readonly #arrivals: (() => unknown)[] = [];
  #wake = (): void => {};
  #failure: unknown;
  #reject: (error: unknown) => void = () => {};
  readonly #failing = new Promise<never>((_, reject) => (this.#reject = reject));
  #settled = false;

  constructor(runtime: WorkerRuntime, client: HatchetClient, registry: Registry, context: DurableContext<object>, meta: Meta) {
    this.log = new DurableLog(context);
    this.#runtime = runtime;
    this.#client = client;
    this.#registry = registry;
    this.#context = context;
    this.#meta = meta;
    this.#nowMs = Math.max(meta.runAtMs ?? 0, meta.submittedAtMs);
    this.#failing.catch(() => {});
  }

  get id(): string {
    return this.#context.taskRunExternalId();
  }

  async run(): Promise<Returned> {
    const { signal } = this.#context.abortController;
    const onAbort = (): void => this.#fail(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      if (this.#meta.kind === undefined && this.log.invocation === 1)
        await putNote(this.#client, this.id, "workflow", { type: "workflow" }).catch(() => {});
      await this.#waitForItsTime();
      // Others do not say when they start one.
      if (this.#nowMs === 0) this.#nowMs = (await this.log.memo({ nowMs: Date.now() })).nowMs;
      const startedAtMs = this.#nowMs;
      await this.#listen();
      this.#lookLater();
      return await this.#loop(startedAtMs);
    } catch (error) {
      // Hatchet ends the run alone, when people cancel it there.
      if (signal.aborted && isUserCancel(signal.reason)) await this.#cancelSteps();
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  leave(why: string): void {
    this.#fail(new Leaving(why));
  }

  end(): void {
    this.#settled = true;
    for (const timer of this.#timers) clearTimeout(timer);
  }

  differs(cause: Error): Parked {
    const message = `The workflow "${this.#meta.name}" asks for something else than when it ran before: ${cause.message.split("\nCheck out")[0]} Give changed code a new version, or run the code that began it.`;
    return new Parked({ name: "NonDeterminismError", message, code: "NON_DETERMINISM", retryable: true }, 2_000);
  }

  async #waitForItsTime(): Promise<void> {
    const { runAtMs } = this.#meta;
    if (runAtMs === undefined) return;
    const { delayMs } = await this.log.memo({ delayMs: Math.max(runAtMs - Date.now(), 0) });
    if (delayMs === 0) return;
    const { done } = await this.log.sleep(delayMs, "waiting for its time");
    if (runAtMs > Date.now() + 1_000) await this.log.evict(this.#client, "waiting for its time");
    await Promise.race([done, this.#failing]);
  }

  // ---- what is sent to it ----

  /** A standing wait: what is sent wakes it, and is read then. */
  async #listen(): Promise<void> {
    const { done } = await this.log.event<Wake>(wakeKey(this.#context.workflowRunId()));
    this.#onArrival(done, (wake) => this.#woken(wake));
  }

  async #woken(first: Wake): Promise<void> {
    // At once: what comes while nobody listens is in the server's list only.
    await this.#listen();
    const { wakes, atMs } = await this.log.memo({ wakes: await this.#unread(first), atMs: Date.now() });
    for (const wake of wakes) {
      this.#wakes.add(wake.id);
      this.#take(wake, atMs);
    }
    this.#lookLater();
  }

  /** What was sent and not acted on, in order. */
  async #unread(first: Wake): Promise<readonly Wake[]> {
    const isNew = ({ id, entry }: Wake): boolean => entry !== undefined && !this.#wakes.has(id);
    const read = async (): Promise<ReadWake[]> => {
      const all = await readWakes(this.#client, this.#context.workflowRunId(), this.#meta.submittedAtMs);
      return all.filter(isNew);
    };
    let listed = await read();
    const isMissing = (): boolean => isNew(first) && !listed.some(({ id }) => id === first.id);
    // One that was sent before these may not be in the list yet.
    const youngMs = isMissing() ? LAGS_MS : LAGS_MS - (Date.now() - Math.max(...listed.map(({ seenAtMs }) => seenAtMs)));
    if (youngMs > 0) {
      await pause(Math.min(youngMs, LAGS_MS));
      listed = await read();
    }
    if (!isMissing()) return listed;
    const isEarlier = ({ atMs }: Wake): boolean => atMs <= first.atMs;
    return [...listed.filter(isEarlier), first, ...listed.filter((wake) => !isEarlier(wake))];
  }

  #take({ entry }: Wake, atMs: number): void {
    if (!entry) return;
    this.#nowMs = Math.max(this.#nowMs, atMs);
    if (entry.type === "cancel") {
      if (!this.#cancelled) this.#happened({ type: "cancel", atMs: this.#nowMs });
      this.#cancelled = true;
      return;
    }
    const { name, payload, dedupeId } = entry;
    if (dedupeId !== undefined && this.#dedupeIds.has(dedupeId)) return;
    if (dedupeId !== undefined) this.#dedupeIds.add(dedupeId);
    this.#happened({ type: "signal", name, payload, atMs: this.#nowMs });
  }

  /** Something may have been sent just before it listened: what is found then is sent once more. */
  #lookLater(): void {
    for (const ms of LOOKS_MS) {
      const timer = setTimeout(() => {
        void (async (): Promise<void> => {
          const runId = this.#context.workflowRunId();
          const found = await readWakes(this.#client, runId, this.#meta.submittedAtMs);
          if (found.some(({ id }) => !this.#wakes.has(id)) && !this.#settled) await sendWake(this.#client, runId);
        })().catch(() => {});
      }, ms);
      timer.unref();
      this.#timers.push(timer);
    }
  }

  // ---- ticks ----

  #happened(entry: JournalEntry): void {
    this.#journal.push(entry);
  }

  #onArrival<T>(done: Promise<T>, act: (value: T) => unknown): void {
    void done
      .then((value) => {
        this.#arrivals.push(() => act(value));
        this.#wake();
      })
      .catch((error: unknown) => this.#fail(error));
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#reject(error);
    this.#wake();
  }

  /** A run that waits for long takes no place meanwhile. */
  async #arrival(): Promise<void> {
    if (this.#arrivals.length > 0 || this.#failure !== undefined) return;
    const news = new Promise<void>((resolve) => (this.#wake = resolve));
    const idle = setTimeout(() => {
      this.log.evict(this.#client, "waiting").catch((error: unknown) => this.#fail(error));
    }, IDLE_MS);
    await news;
    clearTimeout(idle);
  }

  async #loop(startedAtMs: number): Promise<Returned> {
    for (let first = true; ; first = false) {
      // One at a time, with all that follows from it: together, the log would have another order in the next invocation.
      if (!first) {
        await this.#arrival();
        if (this.#failure !== undefined) throw this.#failure;
        await this.#arrivals.shift()?.();
      }
      const known = this.#journal.length;
      if (this.#failure !== undefined) throw this.#failure;
      const result = await this.#ask(known, startedAtMs);
      if (this.#failure !== undefined) throw this.#failure;
      if (first && this.log.invocation > 1 && result.do === "wait")
        void putNote(this.#client, this.id, "goes on", { type: "resumed" }).catch(() => {});
      if (result.do === "retry") throw new Parked(result.error, Math.max(result.delayMs, 1_000));
      if (result.do === "release" || result.do === "needJournal")
        throw new Parked(undefined, Math.max(result.do === "release" ? result.delayMs : 0, 1_000));
      this.#fed = known;
      if (result.do === "wait") {
        for (const command of result.commands) await this.#start(command);
        continue;
      }
      return await this.#end(result, startedAtMs);
    }
  }

  async #ask(known: number, startedAtMs: number): Promise<TickResult> {
    const ask = (from: number): Promise<TickResult> =>
      this.#runtime.advance({
        id: this.#context.workflowRunId(),
        name: this.#meta.name,
        ...(this.#meta.version !== undefined && { version: this.#meta.version }),
        queue: this.#meta.queue,
        input: fromInput(this.#context.input, this.#meta),
        headers: this.#meta.headers ?? {},
        startedAtMs,
        entries: this.#journal.slice(from, known),
        from,
        seen: this.#fed,
        commandsSeen: this.#commandsSeen,
        retries: this.#context.retryCount(),
      });
    const result = await ask(this.#fed);
    return result.do === "needJournal" ? ask(0) : result;
  }

  async #end(result: Extract<TickResult, { do: "complete" | "settle" }>, startedAtMs: number): Promise<Returned> {
    // What an earlier invocation wrote must all have been asked for.
    if (this.log.invocation > 1) await this.log.memo({ ends: true });
    await this.#cancelSteps();
    const settled = { attempts: 1, startedAtMs, finishedAtMs: Date.now() };
    if (result.do === "complete") return { output: result.output, taskBackend: settled };
    throw toThrown({ ...settled, status: result.status, error: result.error });
  }

  // ---- commands ----

  async #start(command: Command): Promise<void> {
    this.#commandsSeen++;
    this.#journal.push({ type: "command", n: command.n, key: command.key });
    if (command.do === "run") return this.#step(command.n, command.run);
    if (command.do === "sleep") return this.#time(command.n, command.untilMs);
    if (command.do === "await") return command.untilMs === undefined ? undefined : this.#time(command.n, command.untilMs);
    const step = this.#steps.get(command.of);
    this.#cancelledSteps.add(command.of);
    if (step) await this.#cancelRuns([step]);
  }

  async #time(n: number, untilMs: number): Promise<void> {
    // A sleep must be the same in each invocation, and no later than the first has said.
    const recorded = await this.log.memo({ untilMs, ms: Math.max(untilMs - Date.now(), 1) });
    const { done } = await this.log.sleep(recorded.ms);
    this.#onArrival(done, () => {
      if (this.#cancelledSteps.has(n)) return;
      this.#nowMs = Math.max(this.#nowMs, recorded.untilMs);
      this.#happened({ type: "fired", n, atMs: this.#nowMs });
    });
  }

  async #step(n: number, run: RunRequest): Promise<void> {
    await this.#registry.ensure(run, false);
    const meta: Meta = { ...toMeta(run), submittedAtMs: this.#nowMs };
    const child: Child = {
      name: hatchetName(run.name, false),
      input: toInput(run),
      metadata: { [META]: JSON.stringify(meta) },
      priority: toPriority(run.priority),
      labels: Object.fromEntries(labelsOf(run).map((label) => [label, { intValue: 1, required: true as const }])),
    };
    const spawned = await this.log.spawn(child);
    this.#steps.set(n, spawned);
    this.#accepted.add(spawned.id, run.name);
    this.#onArrival(spawned.done, (completion) => {
      this.#steps.delete(n);
      this.#settle(n, run, completion);
    });
  }

  #settle(n: number, run: RunRequest, completion: Completion): void {
    const { outcome, finishedAtMs } = outcomeOf(run.name, completion);
    this.#nowMs = Math.max(this.#nowMs, finishedAtMs ?? 0);
    this.#happened({ type: "settled", n, atMs: this.#nowMs, outcome });
  }

  async #cancelSteps(): Promise<void> {
    await this.#cancelRuns([...this.#steps.values()]);
  }

  async #cancelRuns(steps: readonly Spawned[]): Promise<void> {
    if (steps.length === 0) return;
    await Promise.all(steps.map(({ id }) => cancelRun(this.#client, id, this.#accepted).catch(() => {})));
  }
}

function isUserCancel(reason: unknown): boolean {
  return (reason as { reason?: string } | undefined)?.reason === "cancelled";
}
