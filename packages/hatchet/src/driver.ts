import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import {
  cancelledRecord,
  errorRecord,
  type Answer,
  type Command,
  type RunRequest,
  type WorkerRuntime,
  type WorkflowRun,
} from "@task-backend/core/adapter";
import { DurableLog, type Completion } from "./durable-log.ts";
import { Leaving, Parked } from "./halts.ts";
import { Inbox } from "./inbox.ts";
import { Journal } from "./journal.ts";
import { outcomeOf } from "./mapping.ts";
import { putNote } from "./notes.ts";
import type { Registry } from "./registry.ts";
import { wake } from "./sent.ts";
import { Steps } from "./steps.ts";
import { fromInput, toThrown, wakeKey, type Meta, type Returned, type Sent } from "./wire.ts";

/** When a run looks for signals without an event: the event that wakes it may be lost in a crash of the server. */
const LOOKS_MS = [2_000, 20_000, 60_000] as const;
/** The engine looks for due timers once a second; after this delay a worker sends its own event for one. */
const ALARM_MS = 20;
/** A run that waits for longer than this is left to the engine. */
const IDLE_MS = 60_000;

/** Recorded in the log: the ids of the notes that were taken here, and when. */
interface Look {
  readonly kind: "look";
  readonly sent: readonly string[];
  readonly atMs: number;
}

/** One invocation of a workflow run: it asks core for the next commands and carries them out in Hatchet's log. */
export class Driver {
  readonly log: DurableLog;
  readonly #runtime: WorkerRuntime;
  readonly #client: HatchetClient;
  readonly #context: DurableContext<object>;
  readonly #inbox: Inbox;
  #meta: Meta;
  readonly #journal: Journal;
  readonly #steps: Steps;
  readonly #dedupeIds = new Set<string>();
  readonly #looks: NodeJS.Timeout[] = [];
  /** The outcome of the function, while that is not final. */
  #ending: Answer | undefined;
  /** The ids of signals that came after the function had ended. If it ends all the same, their senders are not told that it saw them. */
  #overtaken: readonly string[] | undefined;
  /** The due time for which an event was last sent. */
  #alarmedMs = 0;
  #startedAtMs = 0;
  /** The arrivals that were not acted on yet, in the order that each invocation sees. */
  readonly #arrivals: (() => unknown)[] = [];
  #wake = (): void => {};
  #failure: unknown;
  #reject: (error: unknown) => void = () => {};
  readonly #failing = new Promise<never>((_, reject) => (this.#reject = reject));

  /** @param version the version that this worker has, for a run that was submitted without one */
  constructor(
    runtime: WorkerRuntime,
    client: HatchetClient,
    registry: Registry,
    context: DurableContext<object>,
    meta: Meta,
    version: string | undefined,
  ) {
    this.log = new DurableLog(context);
    this.#runtime = runtime;
    this.#client = client;
    this.#steps = new Steps(client, registry, this.log);
    this.#context = context;
    this.#inbox = new Inbox(client, context.taskRunExternalId());
    this.#meta = { ...meta, version: meta.version ?? version };
    this.#journal = new Journal(Math.max(meta.runAtMs ?? 0, meta.submittedAtMs));
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
      await this.#waitForItsTime();
      // A run that another program started has no start time.
      if (this.#journal.nowMs === 0) this.#journal.nowMs = (await this.log.memo({ kind: "now", nowMs: Date.now() })).nowMs;
      this.#startedAtMs = this.#journal.nowMs;
      await this.#begin();
      return await this.#loop();
    } catch (error) {
      // Hatchet ends only the run itself when people cancel it there.
      if (signal.aborted && isUserCancel(signal.reason)) await this.#steps.cancelAll().catch(() => {});
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  leave(why: string): void {
    this.#fail(new Leaving(why));
  }

  /** Asks for a tick without an arrival: the function went on outside of a tick, and core must report that. */
  nudge(): void {
    this.#arrivals.push(() => {});
    this.#wake();
  }

  end(): void {
    for (const look of this.#looks) clearTimeout(look);
  }

  /** Parks a run whose log was written by other code. A cancelled run ends all the same. */
  async endDiffering(difference: Error): Promise<Returned> {
    const { name } = this.#meta;
    const ended = this.#ending ? "its function has ended, and the record goes on: " : "";
    const message = `The workflow "${name}" asks for something else than when it ran before: ${ended}${difference.message.split("\nCheck out")[0]} Give changed code a new version, or run the code that began it.`;
    const thrown = this.#ending?.do === "settle" && { cause: this.#ending.error };
    const error = { ...errorRecord("NonDeterminismError", "NON_DETERMINISM", message, true), ...thrown };
    if (!this.#journal.isCancelled && !(await this.#findCancel())) throw new Parked(error, 2_000);
    await this.#steps.cancelEarlier(this.id);
    return await this.#end({ do: "settle", status: "cancelled", error: { ...cancelledRecord(name), cause: error } });
  }

  async #waitForItsTime(): Promise<void> {
    const { runAtMs } = this.#meta;
    if (runAtMs === undefined) return;
    const { delayMs } = await this.log.memo({ kind: "delay", delayMs: Math.max(runAtMs - Date.now(), 0) });
    if (delayMs === 0) return;
    const { done } = await this.log.sleep(delayMs, "waiting for its time");
    if (runAtMs > Date.now() + 1_000) await this.log.evict(this.#client, "waiting for its time");
    await Promise.race([done, this.#failing]);
  }

  // ---- signals and cancellations ----

  /** Starts to listen before it reads: later notes wake the run, and earlier ones can be read. */
  async #begin(): Promise<void> {
    await this.#listen();
    const first = this.log.invocation === 1 && this.#meta.runAtMs === undefined;
    const { cancelled, version } = await this.#inbox.begin(first, this.#meta.version);
    if (cancelled) {
      const atMs = Date.now();
      const error = cancelledRecord(this.#meta.name);
      throw toThrown({ attempts: 0, startedAtMs: atMs, finishedAtMs: atMs, status: "cancelled", error });
    }
    this.#meta = { ...this.#meta, version: version ?? this.#meta.version };
    if (this.log.invocation === 1 && (await this.#inbox.unread()).length > 0) await wake(this.#client, this.id);
    for (const ms of LOOKS_MS) this.#looks.push(setTimeout(() => void this.#look().catch(() => {}), ms).unref());
  }

  async #look(): Promise<void> {
    if ((await this.#inbox.unread()).length > 0) await wake(this.#client, this.id);
  }

  /** Waits for the next event; each event starts the next wait. */
  async #listen(): Promise<void> {
    const { done } = await this.log.event(wakeKey(this.#context.workflowRunId()));
    this.#onArrival(done, () => this.#woken());
  }

  async #woken(): Promise<void> {
    // The next wait starts first: from here on, notes may come that the look below does not see.
    await this.#listen();
    await this.#take(await this.log.record<Look>("look", async () => this.#lookOf(await this.#inbox.unread())));
  }

  #lookOf(sent: readonly Sent[]): Look {
    return { kind: "look", sent: sent.map(({ id }) => id), atMs: Date.now() };
  }

  async #take({ sent, atMs }: Look): Promise<void> {
    for (const one of await this.#inbox.take(sent)) {
      // A server whose clock is ahead must not end a sleep early.
      const seenAtMs = Math.min(one.seenAtMs, atMs);
      this.#journal.fire(seenAtMs);
      if (one.type === "cancel") {
        this.#journal.happened({ type: "cancel", atMs: seenAtMs });
        continue;
      }
      const { name, payload, dedupeId } = one;
      if (dedupeId !== undefined && this.#dedupeIds.has(dedupeId)) continue;
      if (dedupeId !== undefined) this.#dedupeIds.add(dedupeId);
      this.#journal.happened({ type: "signal", name, payload, atMs: seenAtMs });
    }
    this.#journal.fire(atMs);
  }

  /**
   * Whether signals came before the run's end was reported; the run then takes them. It notes its end before it looks, so that the
   * sender of a later signal finds the note and asks for the run's outcome.
   */
  async #hasMissed(): Promise<boolean> {
    let look = await this.log.next<Look>("look");
    if (!look) {
      await putNote(this.#client, this.id, "its function has ended", { type: "ending" });
      const unread = await this.#inbox.unread();
      if (!unread.some(({ type }) => type === "signal")) return false;
      look = await this.log.memo(this.#lookOf(unread));
    }
    await this.#take(look);
    this.#overtaken = look.sent;
    return true;
  }

  /** Notes that the function went on after its end, because signals came. */
  async #goesOn(): Promise<void> {
    if (!this.#overtaken) return;
    this.#overtaken = undefined;
    await putNote(this.#client, this.id, "goes on: signals came", { type: "goes-on" });
  }

  // ---- ticks ----

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

  /** Waits for the next arrival. A run that waits for long is left to the engine and holds no slot. */
  async #arrival(): Promise<void> {
    if (this.#arrivals.length > 0 || this.#failure !== undefined) return;
    const news = this.news();
    const idle = setTimeout(() => {
      this.log.evict(this.#client, "waiting").catch((error: unknown) => this.#fail(error));
    }, IDLE_MS);
    const alarm = this.#setAlarm();
    await news;
    clearTimeout(idle);
    clearTimeout(alarm);
  }

  /** Wakes the run when its next timer is due, with an event, because events have a position in the log. */
  #setAlarm(): NodeJS.Timeout | undefined {
    const dueMs = this.#journal.timers.nextMs();
    if (dueMs === undefined || dueMs <= this.#alarmedMs || dueMs > Date.now() + IDLE_MS) return undefined;
    return setTimeout(
      () => {
        this.#alarmedMs = dueMs;
        wake(this.#client, this.id).catch(() => {});
      },
      Math.max(dueMs - Date.now(), 0) + ALARM_MS,
    );
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure as Error;
  }

  async #loop(): Promise<Returned> {
    for (let first = true; ; first = false) {
      const result = await this.#ask();
      this.#throwIfFailed();
      if (first && this.log.invocation > 1 && result.do === "wait")
        void putNote(this.#client, this.id, "goes on", { type: "resumed" }).catch(() => {});
      if (result.do === "retry") return await this.#endIfCancelled(new Parked(result.error, Math.max(result.delayMs, 1_000)));
      if (result.do === "release") throw new Parked(undefined, Math.max(result.delayMs, 1_000));
      if (result.do !== "wait") {
        this.#ending = result;
        if (!(await this.#hasToGoOn(result))) return await this.#end(result);
        this.#ending = undefined;
        continue;
      }
      await this.#goesOn();
      await this.#carryOut(result.commands);
      // Arrivals are handled one at a time, with all consequences: otherwise the next invocation would write the log in another order.
      await this.#arrival();
      this.#throwIfFailed();
      await this.#arrivals.shift()?.();
      this.#throwIfFailed();
    }
  }

  #ask(): Promise<Answer> {
    const { name, version, queue, headers = {}, priority } = this.#meta;
    const run: WorkflowRun = {
      id: this.#context.workflowRunId(),
      name,
      ...(version !== undefined && { version }),
      queue,
      input: fromInput(this.#context.input, this.#meta),
      headers,
      ...(priority !== undefined && { priority }),
      startedAtMs: this.#startedAtMs,
    };
    return this.#journal.ask(this.#runtime, run, this.#context.retryCount());
  }

  /** Whether the run goes on, because signals came before its end. A cancelled run ends as it is. */
  async #hasToGoOn(result: Answer): Promise<boolean> {
    if (result.do === "complete" || (result.do === "settle" && result.status === "failed")) return this.#hasMissed();
    // The function must have repeated every call that an earlier invocation recorded.
    const more = await this.log.next<Look>("look");
    if (more) await this.#take(more);
    return more !== undefined;
  }

  /** Ends a run that waits for other code if it is cancelled. The cancellation is only in this tick: other code may write the log. */
  async #endIfCancelled(parked: Parked): Promise<Returned> {
    const cancel = await this.#findCancel();
    if (!cancel) throw parked;
    this.#journal.happened({ type: "cancel", atMs: cancel.seenAtMs });
    const result = await this.#ask();
    this.#throwIfFailed();
    if (result.do !== "settle") throw parked;
    await this.#steps.cancelEarlier(this.id);
    return await this.#end(result);
  }

  async #findCancel(): Promise<Sent | undefined> {
    return (await this.#inbox.unread()).find(({ type }) => type === "cancel");
  }

  /** Resolves at the next arrival, or when the run cannot go on here. */
  news(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  async #end(result: Extract<Answer, { do: "complete" | "settle" }>): Promise<Returned> {
    await this.#steps.cancelAll();
    const heard = this.#inbox.heard().filter((id) => !this.#overtaken?.includes(id));
    const settled = { attempts: 1, startedAtMs: this.#startedAtMs, finishedAtMs: Date.now(), ...(heard.length > 0 && { heard }) };
    if (result.do === "complete") return { output: result.output, taskBackend: settled };
    throw toThrown({ ...settled, status: result.status, error: result.error });
  }

  // ---- commands ----

  async #carryOut(commands: readonly Command[]): Promise<void> {
    // A step that is cancelled in its own tick never starts.
    const withdrawn = new Set(commands.flatMap((command) => (command.do === "cancel" ? [command.of] : [])));
    for (const command of commands) {
      this.#journal.commanded(command);
      if (withdrawn.has(command.n)) continue;
      if (command.do === "run") await this.#step(command.n, command.run);
      else if (command.do === "cancel") await this.#withdraw(command.of);
      else if (command.untilMs !== undefined) await this.#time(command.n, command.untilMs);
    }
  }

  async #withdraw(n: number): Promise<void> {
    this.#journal.timers.delete(n);
    await this.#steps.cancel(n);
  }

  async #time(n: number, untilMs: number): Promise<void> {
    // A sleep must have the same length in each invocation, as the first one recorded it.
    const recorded = await this.log.memo({ kind: "time", untilMs, ms: Math.max(untilMs - Date.now(), 1) });
    const { done } = await this.log.sleep(recorded.ms);
    this.#journal.timers.set(n, recorded.untilMs);
    this.#onArrival(done, () => {
      if (this.#journal.timers.has(n)) this.#journal.fire(recorded.untilMs);
    });
  }

  async #step(n: number, run: RunRequest): Promise<void> {
    const { done } = await this.#steps.start(n, run, this.#journal.nowMs);
    this.#onArrival(done, (completion) => {
      this.#steps.settled(n);
      return this.#settle(n, run, completion);
    });
  }

  async #settle(n: number, run: RunRequest, completion: Completion): Promise<void> {
    const { outcome, finishedAtMs = this.#journal.nowMs } = outcomeOf(run.name, completion);
    if (this.#journal.timers.isDue(finishedAtMs)) {
      // A worker whose clock is ahead must not end a sleep early.
      const { nowMs } = await this.log.memo({ kind: "now", nowMs: Date.now() });
      this.#journal.fire(Math.min(finishedAtMs, nowMs));
    }
    this.#journal.happened({ type: "settled", n, atMs: finishedAtMs, outcome });
  }
}

function isUserCancel(reason: unknown): boolean {
  return (reason as { reason?: string } | undefined)?.reason === "cancelled";
}
