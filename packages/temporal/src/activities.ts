import { setTimeout as pause } from "node:timers/promises";
import {
  corruptRecord,
  Interruption,
  type AbortReason,
  type Attempt,
  type Decision,
  type DefinitionSpec,
  type ErrorRecord,
  type JournalEntry,
  type Json,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { Context } from "@temporalio/activity";
import { CancelledFailure, CompleteAsyncError } from "@temporalio/common";
import type { Awake } from "./awake.ts";
import type { Execution } from "./event-times.ts";
import { failureOf, NOT_HERE, retryDelay } from "./failure.ts";
import { toRunId } from "./mapping.ts";
import type { ArrivedAt } from "./order.ts";
import type { Gate } from "./slots.ts";
import { undecodable } from "./undecodable.ts";
import { ONE_ACTIVITY, readMeta, withoutUnheard, type Beat, type Meta, type TaskEnd } from "./wire.ts";

/** The interval of heartbeats. The SDK sends at most one a second; each also brings news of a cancellation. */
export const BEAT_MS = 1_000;
/** How long a stopping worker waits for the workflows of its last tasks to end. */
const CLOSING_MS = 2_000;

/** How long a start waits at the gate for another attempt to end. */
const GATE_MS = 1_000;

/** The client functions that attempts and ticks need. */
export interface Links {
  /** Runs a workflow that was submitted by name only, and completes the activity with its result. Resolves once it has started. */
  forward(workflow: ForwardedWorkflow): Promise<void>;
  /** Sends a heartbeat at once; the worker's own heartbeats are held back for a second. */
  heartbeat(taskToken: Uint8Array, beat: Beat): Promise<void>;
  isCancelRequested(workflowId: string): Promise<boolean>;
  /** Resolves when a workflow is closed; rejects when the signal is aborted. */
  closed(workflowId: string, signal: AbortSignal): Promise<unknown>;
  /** The times at which recent entries arrived at the server. */
  arrivalTimes(execution: Execution, entries: readonly JournalEntry[], lastEvent: number): Promise<ArrivedAt>;
  /** Asks for a tick of that workflow soon. */
  wake(workflowId: string): Promise<void>;
}

export interface ForwardedWorkflow {
  readonly activityId: string;
  readonly taskToken: Uint8Array;
  readonly name: string;
  readonly queue: string;
  readonly input: Json;
  readonly meta: Meta;
  readonly priorityKey?: number;
  readonly beat: Beat;
  /** Aborted when the worker stops: another worker continues with the workflow. */
  readonly stopped: AbortSignal;
}

/** The attempts that run in one worker. */
export class Activities {
  readonly #runtime: WorkerRuntime;
  readonly #running = new Set<Interruption>();
  readonly #gate: Gate;
  readonly #links: Links;
  readonly #heartbeatTimeoutMs: number;
  readonly #awake: Awake;
  readonly #stopping = new AbortController();
  #draining = false;
  #drained = (): void => {};
  /** The workflows of tasks that ended here recently, and when. */
  readonly #ended = new Map<string, number>();

  constructor(runtime: WorkerRuntime, gate: Gate, awake: Awake, links: Links, heartbeatTimeoutMs: number) {
    this.#heartbeatTimeoutMs = heartbeatTimeoutMs;
    this.#awake = awake;
    this.#runtime = runtime;
    this.#gate = gate;
    this.#links = links;
  }

  /** Aborts all running attempts, which are then released: the worker stops. */
  abortAll(reason: AbortReason): void {
    this.#stopping.abort();
    for (const interruption of this.#running) interruption.abort(reason);
  }

  /** Takes no more attempts; resolves when the running ones and their workflows have ended, for which this worker is still needed. */
  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#running.size > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
    this.#forgetEnded();
    const late = new AbortController();
    const closed = Promise.all([...this.#ended.keys()].map((workflowId) => this.#links.closed(workflowId, late.signal)));
    await Promise.race([closed.catch(() => {}), pause(CLOSING_MS, undefined, { signal: late.signal }).catch(() => {})]);
    late.abort();
  }

  #forgetEnded(): void {
    for (const [workflowId, endedAtMs] of this.#ended) {
      if (endedAtMs > Date.now() - CLOSING_MS) return;
      this.#ended.delete(workflowId);
    }
  }

  /** Executes the attempts of tasks: it receives every activity type that is not ours. */
  readonly execute = async (input: unknown = null, second: unknown = {}): Promise<Json> => {
    const takenAtMs = performance.now();
    const context = Context.current();
    const { info } = context;
    const name = info.activityType;
    const before = withoutUnheard(beatOf(info.heartbeatDetails), info.attempt);
    const attempt = info.attempt - (before.released ?? 0);
    const meta = readMeta(second);
    const why = undecodable(input) ?? undecodable(second);
    if (!meta || why !== undefined) throw failureOf({ status: "failed", attempts: attempt, error: corruptArguments(name, why) });
    const interruption = new Interruption();
    const onCancel = (): void => interruption.abort(reasonOf(context));
    context.cancellationSignal.addEventListener("abort", onCancel, { once: true });
    if (this.#stopping.signal.aborted || this.#draining) interruption.abort("shutdown");
    const kind = meta.kind === undefined ? this.#kindOf(name) : undefined;
    let beat: Beat = { ...before, ...(kind && { kind }), begun: info.attempt, startedAtMs: before.startedAtMs ?? Date.now() };
    let progressed = false;
    let entered = false;
    const send = (): void => context.heartbeat(beat);
    // A short attempt needs no heartbeat.
    const timer = setInterval(send, BEAT_MS);
    this.#running.add(interruption);
    try {
      if (kind === "workflow") await this.#startAsWorkflow(context, input as Json, meta, beat);
      entered = await this.#gate.enter(GATE_MS);
      const failed = before.failed?.attempt === attempt - 1 ? before.failed.error : undefined;
      const decision = await this.#decide(entered, {
        id: idOf(context),
        name,
        queue: info.taskQueue,
        attempt,
        input: input as Json,
        headers: meta.headers ?? {},
        ...(failed && { previousError: failed }),
        interruption,
        holds: () => (info.attempt === 1 && this.#awake.since(takenAtMs)) || this.#announce(context, beat, interruption),
        progress: (value) => {
          progressed = true;
          beat = { ...beat, progress: value };
          send();
        },
      });
      if (decision.do === "retry") beat = { ...beat, failed: { attempt, error: decision.error } };
      if (decision.do === "release") {
        beat = { ...beat, released: (beat.released ?? 0) + 1 };
        if (attempt === 1) delete (beat as { startedAtMs?: number }).startedAtMs;
      }
      // A failure carries the last heartbeat's details, and a completion does not.
      if (decision.do !== "complete") send();
      else if (progressed && !isOneActivity(context)) await this.#links.heartbeat(info.taskToken, beat).catch(() => {});
      if (!isOneActivity(context)) return answer(decision, attempt);
      this.#forgetEnded();
      if (decision.do === "complete" || decision.do === "settle") this.#ended.set(info.workflowExecution?.workflowId ?? "", Date.now());
      return answer(decision, attempt, beat);
    } finally {
      if (entered) this.#gate.leave();
      clearInterval(timer);
      this.#running.delete(interruption);
      if (this.#running.size === 0) this.#drained();
      context.cancellationSignal.removeEventListener("abort", onCancel);
    }
  };

  /** Releases an attempt that was taken with a slot for polling while the gate is full: another worker may have a free slot. */
  #decide(entered: boolean, attempt: Attempt): Decision | Promise<Decision> {
    return entered ? this.#runtime.execute(attempt) : { do: "release", delayMs: 1 };
  }

  /**
   * Starts a workflow that was requested by name only. If it is a step, its parent workflow starts it as a child; if it was submitted,
   * the activity stays open until the workflow started for it has ended. Meanwhile it takes no slot.
   */
  async #startAsWorkflow({ info }: Context, input: Json, meta: Meta, beat: Beat): Promise<never> {
    const { activityId, activityType: name, taskToken, taskQueue: queue, workflowExecution } = info;
    const version = this.#runtime.definitions.findLast((one) => one.kind === "workflow" && one.name === name)?.version;
    const told = version !== undefined && { version };
    if (workflowExecution)
      throw failureOf({ status: "workflow", attempts: 1, error: { ...NOT_HERE, message: `"${name}" is a workflow.` }, ...told });
    await this.#links.forward({
      activityId,
      taskToken,
      name,
      queue,
      input,
      meta: { ...meta, kind: "workflow", ...told },
      ...(info.priority?.priorityKey !== undefined && { priorityKey: info.priority.priorityKey }),
      beat,
      stopped: this.#stopping.signal,
    });
    throw new CompleteAsyncError();
  }

  #kindOf(name: string): DefinitionSpec["kind"] | undefined {
    const { definitions } = this.#runtime;
    return ["workflow" as const, "task" as const].find((kind) => definitions.some((one) => one.kind === kind && one.name === name));
  }

  /**
   * Announces the start to the server before the handler can crash the process: a start that the server never hears of is not
   * charged. The answer says whether this worker still owns the attempt.
   */
  async #announce(context: Context, beat: Beat, interruption: Interruption): Promise<boolean> {
    const { taskToken, workflowExecution } = context.info;
    try {
      while (interruption.reason === undefined) {
        const askedAtMs = performance.now();
        await this.#links.heartbeat(taskToken, beat);
        // The process may have been frozen before it read the answer.
        if (performance.now() - askedAtMs > this.#heartbeatTimeoutMs / 2) continue;
        if (!isOneActivity(context) || !(await this.#links.isCancelRequested(workflowExecution?.workflowId ?? ""))) return true;
        // The workflow forwards its cancellation once a worker executes it, which may take until the lost worker is noticed.
        await pause(BEAT_MS);
      }
    } catch (error) {
      if ((error as Error).name === "ActivityCancelledError") interruption.abort("cancel");
    }
    return false;
  }
}

/** The details of a heartbeat of ours; those of other programs are ignored. */
function beatOf(details: unknown): Beat {
  return typeof details === "object" && details !== null && undecodable(details) === undefined ? details : {};
}

function corruptArguments(name: string, why: string | undefined): ErrorRecord {
  return corruptRecord(`The arguments of a run of "${name}"`, why === undefined ? undefined : new Error(why));
}

function reasonOf({ cancellationDetails }: Context): AbortReason {
  if (cancellationDetails?.workerShutdown) return "shutdown";
  return cancellationDetails?.cancelRequested || cancellationDetails?.notFound ? "cancel" : "lost";
}

/** Whether the activity belongs to a task that is a workflow. */
function isOneActivity({ info }: Context): boolean {
  return info.workflowExecution !== undefined && info.activityId === ONE_ACTIVITY;
}

function idOf(context: Context): string {
  const { workflowExecution, activityId } = context.info;
  if (!workflowExecution) return toRunId({ kind: "activity", id: activityId });
  const workflow = toRunId({ kind: "workflow", id: workflowExecution.workflowId });
  return isOneActivity(context) ? workflow : `${workflow}.${activityId}`;
}

/** Turns a decision into an answer to Temporal. If the run's end must carry the last heartbeat, `beat` is given. */
function answer(decision: Decision, attempt: number, beat?: Beat): Json {
  const told = beat && { beat };
  switch (decision.do) {
    case "complete":
      return beat ? ({ attempts: attempt, beat, output: decision.output } satisfies TaskEnd as unknown as Json) : decision.output;
    case "retry":
      throw failureOf({ status: "retrying", attempts: attempt, error: decision.error }, retryDelay(decision.delayMs));
    case "release": {
      const error = { ...NOT_HERE, message: "The attempt was released." };
      throw failureOf({ status: "released", attempts: attempt - 1, error }, retryDelay(decision.delayMs));
    }
    case "settle": {
      const { status, error, attempts = attempt } = decision;
      if (status === "cancelled") throw new CancelledFailure(error.message, beat && [{ attempts, beat, output: null } satisfies TaskEnd]);
      throw failureOf({ status, attempts, error, ...told });
    }
  }
}
