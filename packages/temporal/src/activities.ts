import { setTimeout as pause } from "node:timers/promises";
import {
  cancelledRecord,
  Interruption,
  type AbortReason,
  type Command,
  type Decision,
  type DefinitionSpec,
  type JournalEntry,
  type Json,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { Context } from "@temporalio/activity";
import { CancelledFailure, CompleteAsyncError } from "@temporalio/common";
import type { Awake } from "./awake.ts";
import { failureOf } from "./failure.ts";
import { toRunId } from "./mapping.ts";
import type { Gate } from "./slots.ts";
import { ONE_ACTIVITY, withoutUnheard, type Beat, type Meta, type TaskEnd, type TickAnswer, type TickArguments } from "./wire.ts";

/** The SDK sends no more than one a second; each also brings news of a cancellation. */
const BEAT_MS = 1_000;

/** Half of what fits into one payload of Temporal, and into one message of its workers. */
const MAX_ANSWER_LENGTH = 700_000;
/** How long a worker that stops waits for the workflows around its last tasks to end. */
const CLOSING_MS = 2_000;

/** What attempts need of the client. */
export interface Links {
  /** Runs a workflow that was submitted by name only, and completes the activity with its result. Resolves once it has begun. */
  forward(workflow: ForwardedWorkflow): Promise<void>;
  /** At once; the worker's own heartbeats are held back for a second. */
  heartbeat(taskToken: Uint8Array, beat: Beat): Promise<void>;
  isCancelRequested(workflowId: string): Promise<boolean>;
  /** Resolves when a workflow is closed. */
  closed(workflowId: string): Promise<unknown>;
}

export interface ForwardedWorkflow {
  readonly activityId: string;
  readonly taskToken: Uint8Array;
  readonly name: string;
  readonly queue: string;
  readonly input: Json;
  readonly meta: Meta;
  readonly beat: Beat;
  /** Whether the worker still runs: another will go on with it when it does not. */
  readonly serving: () => boolean;
}

/** The attempts and ticks that run in one worker. */
export class Activities {
  readonly #runtime: WorkerRuntime;
  readonly #running = new Set<Interruption>();
  readonly #gate: Gate;
  readonly #links: Links;
  readonly #heartbeatTimeoutMs: number;
  readonly #awake: Awake;
  #stopping = false;
  #draining = false;
  #drained = (): void => {};
  /** The workflows of tasks that ended here lately, and when. */
  readonly #ended = new Map<string, number>();

  constructor(runtime: WorkerRuntime, gate: Gate, awake: Awake, links: Links, heartbeatTimeoutMs: number) {
    this.#heartbeatTimeoutMs = heartbeatTimeoutMs;
    this.#awake = awake;
    this.#runtime = runtime;
    this.#gate = gate;
    this.#links = links;
  }

  /** A stop: what runs is aborted, and given back. */
  abortAll(reason: AbortReason): void {
    this.#stopping = true;
    for (const interruption of this.#running) interruption.abort(reason);
  }

  /** Takes no more, and resolves when what runs has ended, and the workflows around it, which need this worker once more. */
  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#running.size > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
    this.#forgetEnded();
    const closed = Promise.all([...this.#ended.keys()].map((workflowId) => this.#links.closed(workflowId)));
    await Promise.race([closed.catch(() => {}), pause(CLOSING_MS)]);
  }

  #forgetEnded(): void {
    for (const [workflowId, endedAtMs] of this.#ended) {
      if (endedAtMs > Date.now() - CLOSING_MS) return;
      this.#ended.delete(workflowId);
    }
  }

  /** Every activity type that is not ours: the attempts of tasks. */
  readonly execute = async (input: Json = null, meta: Meta = {}): Promise<Json> => {
    const takenAtMs = performance.now();
    const context = Context.current();
    const { info } = context;
    const name = info.activityType;
    const before = withoutUnheard((info.heartbeatDetails ?? {}) as Beat, info.attempt);
    const attempt = info.attempt - (before.released ?? 0);
    const interruption = new Interruption();
    const onCancel = (): void => interruption.abort(reasonOf(context));
    context.cancellationSignal.addEventListener("abort", onCancel, { once: true });
    if (this.#stopping || this.#draining) interruption.abort("shutdown");
    let beat: Beat = { ...before, begun: info.attempt, startedAtMs: before.startedAtMs ?? Date.now() };
    let progressed = false;
    let entered = false;
    const send = (): void => context.heartbeat(beat);
    // A short attempt has no need of one.
    const timer = setInterval(send, BEAT_MS);
    this.#running.add(interruption);
    try {
      const workflow = meta.kind !== "task" && this.#known("workflow", name);
      if (workflow) {
        const { activityId, taskToken, taskQueue: queue } = info;
        const known: Meta = { ...meta, kind: "workflow", version: workflow.version as string };
        await this.#links.forward({ activityId, taskToken, name, queue, input, meta: known, beat, serving: () => !this.#stopping });
        // Takes no slot while the workflow goes on.
        throw new CompleteAsyncError();
      }
      await this.#gate.enter();
      entered = true;
      const failed = before.failed?.attempt === attempt - 1 ? before.failed.error : undefined;
      const decision = await this.#runtime.execute({
        id: idOf(context),
        name,
        queue: info.taskQueue,
        attempt,
        input,
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
      // What the last heartbeat says travels with a failure, and not with a completion.
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

  /** A tick: local most of the time; as an ordinary activity, one that has to be answered in the end. */
  readonly tick = async (tick: TickArguments): Promise<TickAnswer> => {
    const { info, heartbeat } = Context.current();
    const { workflowId, undecided, ...rest } = tick;
    if (undecided && !this.#known("workflow", tick.name) && this.#known("task", tick.name)) return { do: "task" };
    const retries = info.isLocal ? 0 : info.attempt;
    const timer = info.isLocal ? undefined : setInterval(() => heartbeat(), BEAT_MS);
    const asked = {
      ...rest,
      entries: tick.entries.map(completed),
      id: toRunId({ kind: "workflow", id: workflowId }),
      seen: tick.from,
      retries,
    };
    const result = await this.#runtime.advance(asked).finally(() => clearInterval(timer));
    if (result.do === "wait") return { do: "wait", ...firstOf(result.commands), heartbeatTimeoutMs: this.#heartbeatTimeoutMs };
    if (info.isLocal || (result.do !== "retry" && result.do !== "release")) return result;
    const status = result.do === "retry" ? "retrying" : "released";
    const error = result.do === "retry" ? result.error : NOT_HERE;
    throw failureOf({ status, attempts: 1, error }, Math.max(result.delayMs, 1));
  };

  /**
   * The server takes down that the attempt begins, before the handler can take the process down: a start that it never hears of is not
   * charged. And it says whether the attempt is this worker's still.
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
        // The workflow passes its cancellation on once a worker has taken it up, which may wait for the one that was lost.
        await pause(BEAT_MS);
      }
    } catch (error) {
      if ((error as Error).name === "ActivityCancelledError") interruption.abort("cancel");
    }
    return false;
  }

  #known(kind: DefinitionSpec["kind"], name: string): DefinitionSpec | undefined {
    return this.#runtime.definitions.findLast((one) => one.kind === kind && one.name === name);
  }
}

const NOT_HERE = { name: "Error", message: "This worker does not know the workflow or its version.", code: "NOT_HERE", retryable: true };

/** The interpreter knows that a step was cancelled, and not how that reads. */
function completed(entry: JournalEntry): JournalEntry {
  if (entry.type !== "settled" || entry.outcome.status !== "cancelled" || entry.outcome.error.code !== "") return entry;
  return { ...entry, outcome: { status: "cancelled", error: cancelledRecord(entry.outcome.error.name) } };
}

function reasonOf({ cancellationDetails }: Context): AbortReason {
  if (cancellationDetails?.workerShutdown) return "shutdown";
  return cancellationDetails?.cancelRequested || cancellationDetails?.notFound ? "cancel" : "lost";
}

/** As many as one answer may hold, which stays in the history. */
function firstOf(commands: readonly Command[]): { commands: readonly Command[]; more?: true } {
  let length = 0;
  const end = commands.findIndex((command, index) => (length += JSON.stringify(command).length) > MAX_ANSWER_LENGTH && index > 0);
  return end === -1 ? { commands } : { commands: commands.slice(0, end), more: true };
}

/** Whether it has the attempts of a task that is a workflow. */
function isOneActivity({ info }: Context): boolean {
  return info.workflowExecution !== undefined && info.activityId === ONE_ACTIVITY;
}

function idOf(context: Context): string {
  const { workflowExecution, activityId } = context.info;
  if (!workflowExecution) return toRunId({ kind: "activity", id: activityId });
  const workflow = toRunId({ kind: "workflow", id: workflowExecution.workflowId });
  return isOneActivity(context) ? workflow : `${workflow}.${activityId}`;
}

/** Carries a decision out, in Temporal's terms; with the last heartbeat, where the end of the run has to tell it. */
function answer(decision: Decision, attempt: number, beat?: Beat): Json {
  const told = beat && { beat };
  switch (decision.do) {
    case "complete":
      return beat ? ({ attempts: attempt, beat, output: decision.output } satisfies TaskEnd as unknown as Json) : decision.output;
    case "retry":
      throw failureOf({ status: "retrying", attempts: attempt, error: decision.error }, Math.max(Math.ceil(decision.delayMs), 1));
    case "release": {
      const error = { ...NOT_HERE, message: "The attempt was given back." };
      throw failureOf({ status: "released", attempts: attempt - 1, error }, Math.max(decision.delayMs, 1));
    }
    case "settle": {
      const { status, error, attempts = attempt } = decision;
      if (status === "cancelled") throw new CancelledFailure(error.message, beat && [{ attempts, beat, output: null } satisfies TaskEnd]);
      throw failureOf({ status, attempts, error, ...told });
    }
  }
}
