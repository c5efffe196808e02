import {
  ActivityCancellationType,
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  ChildWorkflowCancellationType,
  ChildWorkflowFailure,
  condition,
  isCancellation,
  makeContinueAsNewFunc,
  ParentClosePolicy,
  scheduleActivity,
  scheduleLocalActivity,
  setDefaultSignalHandler,
  sleep,
  startChild,
  workflowInfo,
} from "@temporalio/workflow";
import type { Command, ErrorRecord, JournalEntry, Json, RunRequest, StepOutcome } from "@task-backend/core/adapter";
import { activityOptions, priorityOf } from "../activity-options.ts";
import { isWorkflow, nativeOf } from "../native.ts";
import { detailOf, failureOf } from "../failure.ts";
import { argumentsOf, ONE_ACTIVITY, TICK, toMeta, type Meta, type TaskEnd, type TickAnswer, type TickArguments } from "../wire.ts";

/*
 * Runs in Temporal's sandbox and serves every workflow name: the default export receives every workflow type. It keeps
 * the journal in the order of its own events, asks the tick (a local activity, in plain Node) what comes next, and
 * carries the commands out by Temporal's own means. It must stay deterministic across versions: changes go behind `patched`.
 */

/** A tick that takes longer goes to a worker as an ordinary activity. */
const TICK_TIMEOUT = "8s";
const SLOW_TICK_TIMEOUT = "1h";
/** What fits into one payload of Temporal beside the input; a fifth is left for what is not ASCII. */
const MAX_CARRIED_LENGTH = 1_500_000;
/** How many steps of one run are under way at a time: Temporal refuses more than 2,000. */
const MAX_STEPS = 500;
/** How long an answer is waited for that only another worker, or fixed code, has, if the journal is too large for an activity. */
const ASK_AGAIN = "30s";

type Carryable = Exclude<TickAnswer, { do: "needJournal" }>;

export default async function interpreter(input: Json = null, meta: Meta = {}): Promise<Json> {
  if (meta.kind === "task") return runTask(input, meta);
  const output = await new Interpreter(input, meta).run();
  return output === IS_TASK ? runTask(input, meta) : output;
}

const IS_TASK = Symbol("is a task");

/** A task where activities cannot run outside workflows: its only one, of the same name, has the attempts. */
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
  readonly #startedAtMs: number;
  #fed: number;
  #commandsSeen: number;
  #cancelled: boolean;
  /** Something has happened since the last tick was asked. */
  #news = false;
  #heartbeatTimeoutMs: number | undefined;
  /** Beyond those that may be under way. */
  readonly #waitingSteps = new Set<() => void>();
  #underWay = 0;
  /** Steps and child workflows under way: a history can only be continued as new between them. */
  #steps = 0;

  constructor(input: Json, meta: Meta) {
    const { carried } = meta;
    this.#input = input;
    this.#meta = meta;
    this.#journal = [...(carried?.journal ?? [])];
    this.#fed = carried?.fed ?? 0;
    this.#commandsSeen = carried?.commandsSeen ?? 0;
    this.#startedAtMs = carried?.startedAtMs ?? workflowInfo().runStartTime.getTime();
    this.#dedupeIds = new Set(carried?.dedupeIds);
    this.#cancelled = carried?.cancelled ?? false;
  }

  async run(): Promise<Json | typeof IS_TASK> {
    setDefaultSignalHandler((name, ...args) => this.#signal(name, args[0] as Json, args[1] as { dedupeId?: string } | undefined));
    const outer = CancellationScope.current();
    outer.cancelRequested.catch(() => this.#cancel());
    if (outer.consideredCancelled) this.#cancel();
    return CancellationScope.nonCancellable(() => this.#loop());
  }

  #signal(name: string, payload: Json | undefined, options: { dedupeId?: string } | undefined): void {
    if (options?.dedupeId !== undefined) {
      if (this.#dedupeIds.has(options.dedupeId)) return;
      this.#dedupeIds.add(options.dedupeId);
    }
    this.#happened({ type: "signal", name, payload: payload ?? null, atMs: Date.now() });
  }

  #happened(entry: JournalEntry): void {
    this.#journal.push(entry);
    this.#news = true;
  }

  #cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#happened({ type: "cancel", atMs: Date.now() });
  }

  async #loop(): Promise<Json | typeof IS_TASK> {
    for (const [n, dueAtMs] of this.#meta.carried?.timers ?? []) this.#time(n, dueAtMs);
    let more = false;
    for (let first = true; ; first = false) {
      await condition(() => first || more || this.#news);
      this.#news = false;
      const known = this.#journal.length;
      const result = await this.#tick(known);
      if (result.do === "task") return IS_TASK;
      this.#heartbeatTimeoutMs = result.heartbeatTimeoutMs;
      if (result.do === "wait") {
        if (this.#steps === 0 && workflowInfo().continueAsNewSuggested) await this.#continueAsNew();
        this.#fed = known;
        for (const command of result.commands) if (command.n >= this.#commandsSeen) this.#start(command);
        more = result.more ?? false;
        // What was started goes to the server before more: the two together may be larger than one message.
        if (more) await sleep(1);
        continue;
      }
      for (const scope of this.#scopes.values()) scope.cancel();
      if (result.do === "complete") return result.output;
      return this.#fail(result);
    }
  }

  #fail(result: Carryable): never {
    if (result.do !== "settle") throw ApplicationFailure.nonRetryable(`A tick answered ${result.do}`);
    const { status, error } = result;
    if (status === "cancelled") throw new CancelledFailure(error.message);
    throw failureOf({ status, attempts: 1, error });
  }

  // ---- ticks ----

  async #tick(known: number): Promise<Carryable> {
    for (;;) {
      let result = await this.#askLocally(this.#fed, known);
      if (result?.do === "needJournal") result = await this.#askLocally(0, known);
      if (result && result.do !== "retry" && result.do !== "release" && result.do !== "needJournal") return result;
      // Another worker, or fixed code, has to answer: an ordinary activity is asked again without adding to the history.
      const asked = this.#arguments(0, known);
      if (JSON.stringify(asked).length < MAX_CARRIED_LENGTH) return this.#askOthers(asked);
      await sleep(ASK_AGAIN);
    }
  }

  #askOthers(asked: TickArguments): Promise<Carryable> {
    return scheduleActivity<Carryable>(TICK, [asked], {
      startToCloseTimeout: SLOW_TICK_TIMEOUT,
      heartbeatTimeout: "30s",
      retry: { initialInterval: "1s", backoffCoefficient: 1 },
    });
  }

  /** Undefined when the tick took too long for a local activity. */
  async #askLocally(from: number, known: number): Promise<TickAnswer | undefined> {
    try {
      return await scheduleLocalActivity<TickAnswer>(TICK, [this.#arguments(from, known)], {
        startToCloseTimeout: TICK_TIMEOUT,
        retry: { maximumAttempts: 1 },
      });
    } catch (error) {
      if (error instanceof ActivityFailure) return undefined;
      throw error;
    }
  }

  #arguments(from: number, known: number): TickArguments {
    const { workflowId, workflowType, taskQueue } = workflowInfo();
    const { kind, version, headers = {} } = this.#meta;
    return {
      workflowId,
      name: workflowType,
      queue: taskQueue,
      input: this.#input,
      headers,
      startedAtMs: this.#startedAtMs,
      entries: this.#journal.slice(from, known),
      from,
      commandsSeen: this.#commandsSeen,
      ...(version !== undefined && { version }),
      ...(kind === undefined && { undecided: true as const }),
    };
  }

  // ---- commands ----

  #start(command: Command): void {
    this.#commandsSeen++;
    this.#journal.push({ type: "command", n: command.n, key: command.key });
    switch (command.do) {
      case "run":
        return this.#step(command.n, command.run);
      case "sleep":
        return this.#time(command.n, command.untilMs);
      case "await":
        if (command.untilMs !== undefined) this.#time(command.n, command.untilMs);
        return;
      case "cancel":
        this.#scopes.get(command.of)?.cancel();
    }
  }

  #time(n: number, dueAtMs: number): void {
    this.#timers.set(n, dueAtMs);
    this.#within(n, async () => {
      await sleep(Math.max(dueAtMs - Date.now(), 1));
      this.#happened({ type: "fired", n, atMs: Date.now() });
    });
  }

  #step(n: number, run: RunRequest): void {
    this.#steps++;
    this.#within(n, async () => {
      let outcome: StepOutcome;
      try {
        const output = await this.#inTurn(() => (isWorkflow(run) ? this.#child(n, run) : this.#activity(n, run)));
        outcome = { status: "completed", output };
      } catch (error) {
        outcome = outcomeOf(run.name, error);
      }
      this.#steps--;
      this.#happened({ type: "settled", n, atMs: Date.now(), outcome });
    });
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#underWay < MAX_STEPS) this.#underWay++;
    else await this.#turn();
    try {
      return await work();
    } finally {
      const [next] = this.#waitingSteps;
      if (next) next();
      else this.#underWay--;
    }
  }

  /** Resolves with the place of a step that has ended. */
  #turn(): Promise<void> {
    return new Promise((resolve, reject) => {
      const begin = (): void => {
        this.#waitingSteps.delete(begin);
        resolve();
      };
      this.#waitingSteps.add(begin);
      CancellationScope.current().cancelRequested.catch((error: unknown) => {
        this.#waitingSteps.delete(begin);
        reject(error);
      });
    });
  }

  #activity(n: number, run: RunRequest): Promise<Json> {
    return scheduleActivity<Json>(run.name, argumentsOf(run.input, toMeta(run)), {
      ...activityOptions(run, this.#heartbeatTimeoutMs),
      ...nativeOf(run).activity,
      activityId: `${n}`,
      taskQueue: run.queue,
      cancellationType: ActivityCancellationType.TRY_CANCEL,
    });
  }

  async #child(n: number, run: RunRequest): Promise<Json> {
    const child = await startChild(run.name, {
      ...nativeOf(run).workflow,
      workflowId: `${workflowInfo().workflowId}.${n}`,
      taskQueue: run.queue,
      args: argumentsOf(run.input, toMeta(run)),
      parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
      cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
      priority: priorityOf(run.priority),
    });
    return (await child.result()) as Json;
  }

  /** Runs something that a command can cancel. */
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

  /** Between two steps, before the commands of the last tick are on record: the next history asks for them again. */
  async #continueAsNew(): Promise<never> {
    const carried = {
      journal: this.#journal,
      fed: this.#fed,
      commandsSeen: this.#commandsSeen,
      startedAtMs: this.#startedAtMs,
      timers: [...this.#timers],
      dedupeIds: [...this.#dedupeIds],
      cancelled: this.#cancelled,
    };
    if (JSON.stringify(carried).length > MAX_CARRIED_LENGTH) throw tooLarge();
    const { workflowType } = workflowInfo();
    return makeContinueAsNewFunc<typeof interpreter>({ workflowType })(this.#input, { ...this.#meta, carried });
  }
}

function tooLarge(): ApplicationFailure {
  const message = `The journal of this workflow has outgrown one payload (${MAX_CARRIED_LENGTH} characters); give parts of it to workflows of their own.`;
  const error: ErrorRecord = { name: "JournalTooLargeError", message, code: "JOURNAL_TOO_LARGE", retryable: false };
  return failureOf({ status: "failed", attempts: 1, error });
}

/** A failure of Temporal as the outcome of a step. The record of a cancelled one, which has no code yet, is written by the tick. */
function outcomeOf(step: string, error: unknown): StepOutcome {
  if (isCancellation(error) || (error instanceof ActivityFailure && error.retryState === "CANCEL_REQUESTED"))
    return { status: "cancelled", error: { name: step, message: "", code: "", retryable: false } };
  const cause = error instanceof ActivityFailure || error instanceof ChildWorkflowFailure ? error.cause : error;
  if (cause instanceof ApplicationFailure) {
    const ours = detailOf(cause);
    if (ours) return { status: ours.status as "failed" | "timed_out" | "cancelled", error: ours.error };
    return {
      status: "failed",
      error: { name: cause.type ?? "Error", message: cause.message, code: cause.type ?? "TASK_FAILED", retryable: false },
    };
  }
  const { name = "Error", message = String(cause) } = cause as Partial<Error>;
  return { status: "failed", error: { name, message, code: "ENGINE_FAILED", retryable: false } };
}
