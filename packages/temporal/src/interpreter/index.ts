import {
  ActivityCancellationType,
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  condition,
  isCancellation,
  log,
  makeContinueAsNewFunc,
  patched,
  scheduleActivity,
  scheduleLocalActivity,
  setDefaultSignalHandler,
  sleep,
  TimeoutFailure,
  upsertMemo,
  workflowInfo,
} from "@temporalio/workflow";
import type { Command, JournalEntry, Json } from "@task-backend/core/adapter";
import { activityOptions } from "../activity-options.ts";
import { failureOf } from "../failure.ts";
import { undecodable } from "../undecodable.ts";
import {
  CANCELLED_MEMO,
  ONE_ACTIVITY,
  readMeta,
  TICK,
  WAKE,
  type Carried,
  type Meta,
  type TaskEnd,
  type TickAnswer,
  type TickArguments,
  type Told,
} from "../wire.ts";
import { corrupt, tooLarge } from "./outcome.ts";
import { Steps } from "./steps.ts";

/*
 * Runs in Temporal's sandbox and serves every workflow name: the default export receives every workflow type. It keeps
 * the journal in the order of its own events, asks the tick (a local activity, in plain Node) for the next commands, and
 * carries the commands out by Temporal's own means. It must stay deterministic across versions: a change of its commands must
 * depend on the recorded answer, as `rules` do, or be guarded by `patched`.
 */

/** A tick that takes longer goes to a worker as an ordinary activity. */
const TICK_TIMEOUT = "8s";
const SLOW_TICK_TIMEOUT = "1h";
/** The longest text that fits into one payload of Temporal beside the input. */
const MAX_CARRIED_LENGTH = 1_500_000;
/** The pause before a tick is repeated that needs another worker or fixed code, if the journal is too large for an activity. */
const ASK_AGAIN = "30s";
/** This change is guarded by `patched`, because no recorded answer tells it. */
const CANCEL_WHILE_ASKING = "cancel while asking";

type Carryable = Exclude<TickAnswer, { do: "needJournal" }>;

export default async function interpreter(given: unknown = null, second: unknown = {}): Promise<Json> {
  const { workflowType } = workflowInfo();
  const meta = readMeta(second);
  const why = undecodable(given) ?? undecodable(second) ?? (meta ? undefined : "the second one is not task-backend's");
  if (why !== undefined || !meta) throw corrupt(workflowType, why ?? "");
  const input = given as Json;
  if (meta.kind === "task") return runTask(input, meta);
  const output = await new Interpreter(input, meta).run();
  if (output !== IS_TASK) return output;
  // The activity that started this workflow by name runs the task.
  return meta.forwarded ? null : runTask(input, meta);
}

function isAdded(told: Told): told is JournalEntry & { type: "fired" } {
  return "type" in told;
}

const IS_TASK = Symbol("is a task");

/** Runs a task on a server without activities outside workflows: the workflow's only activity, of the same name, has the attempts. */
async function runTask(input: Json, meta: Meta): Promise<Json> {
  const { workflowType, taskQueue } = workflowInfo();
  try {
    const { output } = await scheduleActivity<TaskEnd>(workflowType, [input, { ...meta, kind: "task" }], {
      ...activityOptions({}, meta.heartbeatTimeoutMs),
      activityId: ONE_ACTIVITY,
      taskQueue,
      cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    });
    return output;
  } catch (error) {
    throw error instanceof ActivityFailure && error.cause instanceof ApplicationFailure ? error.cause : error;
  }
}

class Interpreter {
  readonly #input: Json;
  readonly #meta: Meta;
  readonly #journal: JournalEntry[];
  readonly #scopes = new Map<number, CancellationScope>();
  readonly #timers = new Map<number, number>();
  readonly #dedupeIds: Set<string>;
  readonly #slots = new Steps();
  /** The time of the first workflow task, until the first answer tells the recorded start time: at replay the two differ. */
  #startedAtMs: number;
  #version: string | undefined;
  /** The rules of the last answer; 0 before the first one. */
  #rules: number;
  #fed: number;
  #commandsSeen: number;
  #cancelled: boolean;
  /** Whether there are new events since the last tick began. */
  #news = false;
  #heartbeatTimeoutMs: number | undefined;
  /** The scope of the ordinary activity that answers a tick. */
  #asking: CancellationScope | undefined;
  /** The number of steps and child workflows under way: a history can be continued as new only when there are none. */
  #steps = 0;

  constructor(input: Json, meta: Meta) {
    const { carried } = meta;
    this.#input = input;
    this.#meta = meta;
    this.#version = meta.version;
    this.#rules = meta.rules ?? 0;
    this.#journal = [...(carried?.journal ?? [])];
    this.#fed = carried?.fed ?? 0;
    this.#commandsSeen = carried?.commandsSeen ?? 0;
    this.#startedAtMs = carried?.startedAtMs ?? workflowInfo().runStartTime.getTime();
    this.#dedupeIds = new Set(carried?.dedupeIds);
    this.#cancelled = carried?.cancelled ?? false;
  }

  async run(): Promise<Json | typeof IS_TASK> {
    setDefaultSignalHandler((name, ...args) => this.#signal(name, args));
    const outer = CancellationScope.current();
    outer.cancelRequested.catch(() => this.#cancel());
    if (outer.consideredCancelled) this.#cancel();
    return CancellationScope.nonCancellable(() => this.#loop());
  }

  #signal(name: string, args: readonly unknown[]): void {
    if (name === WAKE && args.length === 0) {
      this.#news = true;
      return;
    }
    const why = undecodable(args[0]);
    if (why !== undefined) {
      log.warn(`Signal "${name}" is dropped: its payload cannot be read: ${why}`);
      return;
    }
    const { dedupeId } = (args[1] ?? {}) as { dedupeId?: string };
    if (dedupeId !== undefined) {
      if (this.#dedupeIds.has(dedupeId)) return;
      this.#dedupeIds.add(dedupeId);
    }
    this.#happened({ type: "signal", name, payload: (args[0] ?? null) as Json, atMs: Date.now() });
  }

  #happened(entry: JournalEntry): void {
    this.#journal.push(entry);
    this.#news = true;
  }

  #cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#happened({ type: "cancel", atMs: Date.now() });
    if (this.#asking && patched(CANCEL_WHILE_ASKING)) this.#asking.cancel();
  }

  async #loop(): Promise<Json | typeof IS_TASK> {
    for (const [n, dueAtMs] of this.#meta.carried?.timers ?? []) this.#time(n, dueAtMs);
    let again = false;
    for (let first = true; ; first = false) {
      await condition(() => first || again || this.#news);
      this.#news = false;
      const known = this.#journal.length;
      const result = await this.#tick(known);
      again = result === undefined;
      if (!result) continue;
      if (result.do === "task") return IS_TASK;
      this.#heartbeatTimeoutMs = result.heartbeatTimeoutMs;
      again = this.#endsOverSignal(result, known);
      if (again) continue;
      const seen = this.#adopt(result, known);
      if (result.do === "wait") {
        if (this.#steps === 0 && workflowInfo().continueAsNewSuggested) await this.#continueAsNew();
        this.#fed = seen;
        for (const command of result.commands) if (command.n >= this.#commandsSeen) this.#start(command, result.due?.includes(command.n));
        again = result.more ?? false;
        // The started commands go to the server first: with the next ones they may be larger than one message.
        if (again) await sleep(1);
        continue;
      }
      for (const scope of this.#scopes.values()) scope.cancel();
      if (result.do === "complete") return result.output;
      return this.#fail(result);
    }
  }

  /** Whether a signal came during the tick: the function must see it before it ends. A cancelled run ends as it is. */
  #endsOverSignal(result: Carryable, known: number): boolean {
    const ends = result.do === "complete" || (result.do === "settle" && result.status === "failed");
    return ends && result.rules !== undefined && this.#journal.slice(known).some(({ type }) => type === "signal");
  }

  /** Adopts the order and times of the journal that the answer recorded. Returns where the journal ends now. */
  #adopt({ rules, version, startedAtMs, told }: Carryable, known: number): number {
    this.#rules = rules ?? this.#rules;
    this.#version ??= version;
    this.#startedAtMs = startedAtMs ?? this.#startedAtMs;
    if (!told) return known;
    const sent = this.#journal.slice(this.#fed, known);
    const seen = told.map((one): JournalEntry => {
      if (isAdded(one)) {
        // The timer was due, and Temporal's own timer comes late.
        this.#timers.delete(one.n);
        this.#scopes.get(one.n)?.cancel();
        return one;
      }
      const [index, atMs] = one;
      const entry = sent[index] as JournalEntry;
      return entry.type === "command" || atMs === undefined ? entry : { ...entry, atMs };
    });
    this.#journal.splice(this.#fed, sent.length, ...seen);
    return this.#fed + seen.length;
  }

  #fail(result: Carryable): never {
    if (result.do !== "settle") throw ApplicationFailure.nonRetryable(`A tick answered ${result.do}`);
    const { status, error } = result;
    if (status === "cancelled") {
      // A cancelled execution has no failure of its own to carry the error of the cleanup.
      if (error.cause && patched(CANCELLED_MEMO)) upsertMemo({ [CANCELLED_MEMO]: error });
      throw new CancelledFailure(error.message);
    }
    throw failureOf({ status, attempts: 1, error });
  }

  // ---- ticks ----

  /** Executes one tick. Undefined when it must be repeated with newer entries. */
  async #tick(known: number): Promise<Carryable | undefined> {
    let result = await this.#askLocally(this.#fed, known);
    if (result?.do === "needJournal") result = await this.#askLocally(0, known, result.signalsFirst);
    if (result && result.do !== "retry" && result.do !== "release" && result.do !== "needJournal") return result;
    // Only another worker, or fixed code, can answer: an ordinary activity is retried without additions to the history.
    const asked = this.#arguments(0, known);
    if (this.#sizeOf(asked) < MAX_CARRIED_LENGTH) return this.#askOthers(asked);
    await sleep(ASK_AGAIN);
    return undefined;
  }

  /** Executes a tick as an ordinary activity. Undefined when the run was cancelled meanwhile, which ends even code that cannot go on. */
  async #askOthers(asked: TickArguments): Promise<Carryable | undefined> {
    const asking = new CancellationScope({ cancellable: true });
    this.#asking = asking;
    try {
      return await asking.run(() =>
        scheduleActivity<Carryable>(TICK, [asked], {
          startToCloseTimeout: SLOW_TICK_TIMEOUT,
          heartbeatTimeout: "30s",
          retry: { initialInterval: "1s", backoffCoefficient: 1 },
        }),
      );
    } catch (error) {
      if (isCancellation(error)) return undefined;
      throw error;
    } finally {
      this.#asking = undefined;
    }
  }

  /** Executes a tick as a local activity. Undefined when it took too long. */
  async #askLocally(from: number, known: number, signalsFirst?: boolean): Promise<TickAnswer | undefined> {
    try {
      const asked = { ...this.#arguments(from, known), ...(signalsFirst && { signalsFirst: true as const }) };
      return await scheduleLocalActivity<TickAnswer>(TICK, [asked], { startToCloseTimeout: TICK_TIMEOUT, retry: { maximumAttempts: 1 } });
    } catch (error) {
      // At replay the SDK throws the recorded failure itself, and not as the cause of an ActivityFailure.
      if (error instanceof ActivityFailure || error instanceof TimeoutFailure || error instanceof ApplicationFailure) return undefined;
      throw error;
    }
  }

  #arguments(from: number, known: number): TickArguments {
    const { workflowId, workflowType, taskQueue, priority, historyLength } = workflowInfo();
    const { kind, headers = {} } = this.#meta;
    return {
      workflowId,
      name: workflowType,
      queue: taskQueue,
      input: this.#input,
      headers,
      startedAtMs: this.#startedAtMs,
      entries: this.#journal.slice(from, known),
      from,
      acted: this.#fed,
      commandsSeen: this.#commandsSeen,
      timers: [...this.#timers],
      events: historyLength,
      ...(priority?.priorityKey !== undefined && { priorityKey: priority.priorityKey }),
      ...(this.#version !== undefined && { version: this.#version }),
      ...(kind === undefined && this.#rules === 0 && { undecided: true as const }),
    };
  }

  /** The size in bytes; rules 0 counted characters. */
  #sizeOf(value: unknown): number {
    const text = JSON.stringify(value);
    return this.#rules === 0 ? text.length : new TextEncoder().encode(text).length;
  }

  // ---- commands ----

  #start(command: Command, isDue = false): void {
    this.#commandsSeen++;
    this.#journal.push({ type: "command", n: command.n, key: command.key });
    switch (command.do) {
      case "run":
        this.#steps++;
        return this.#within(command.n, async () => {
          const outcome = await this.#slots.run(command.n, command.run, this.#heartbeatTimeoutMs);
          this.#steps--;
          this.#happened({ type: "settled", n: command.n, atMs: Date.now(), outcome });
        });
      case "sleep":
      case "await": {
        const { n, untilMs } = command;
        if (untilMs === undefined) return;
        if (!isDue) return this.#time(n, untilMs);
        return this.#happened({ type: "fired", n, atMs: untilMs, dueMs: untilMs });
      }
      case "cancel":
        this.#scopes.get(command.of)?.cancel();
    }
  }

  #time(n: number, dueAtMs: number): void {
    this.#timers.set(n, dueAtMs);
    this.#within(n, async () => {
      await sleep(Math.max(dueAtMs - Date.now(), 1));
      this.#happened({ type: "fired", n, atMs: Date.now(), dueMs: dueAtMs });
    });
  }

  /** Runs work that a command can cancel. */
  #within(n: number, work: () => Promise<void>): void {
    const scope = new CancellationScope({ cancellable: true });
    this.#scopes.set(n, scope);
    scope
      .run(work)
      .catch((error: unknown) => {
        if (!isCancellation(error)) throw error;
      })
      .finally(() => {
        this.#scopes.delete(n);
        this.#timers.delete(n);
      });
  }

  /** Continues as new between two steps, before the commands of the last tick are recorded: the next history gets them again. */
  async #continueAsNew(): Promise<never> {
    const carried: Carried = {
      journal: this.#journal,
      fed: this.#fed,
      commandsSeen: this.#commandsSeen,
      startedAtMs: this.#startedAtMs,
      timers: [...this.#timers],
      dedupeIds: [...this.#dedupeIds],
      cancelled: this.#cancelled,
    };
    if (this.#sizeOf(carried) > MAX_CARRIED_LENGTH) throw tooLarge(MAX_CARRIED_LENGTH);
    const { workflowType } = workflowInfo();
    const { rules: _, version: __, ...rest } = this.#meta;
    const decided = { ...(this.#rules > 0 && { rules: this.#rules }), ...(this.#version !== undefined && { version: this.#version }) };
    return makeContinueAsNewFunc<typeof interpreter>({ workflowType })(this.#input, { ...rest, ...decided, carried });
  }
}
