import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import { TaskRunTerminatedError, isTaskRunTerminatedError } from "@hatchet-dev/typescript-sdk/util/errors/task-run-terminated-error.js";
import { Interruption, type AbortReason, type Decision, type ErrorRecord, type Json, type WorkerRuntime } from "@task-backend/core/adapter";
import { DurableLog } from "./durable-log.ts";
import { corrupt, orGiveUp } from "./give-up.ts";
import { putNote, readNotes } from "./notes.ts";
import { HEARS_MS } from "./records.ts";
import { fromInput, readMeta, toThrown, type Meta, type Note, type Returned } from "./wire.ts";

/** A run with a shorter wait keeps its slot: to release and restart it takes longer. */
const STAYS_MS = 1_000;

/** An attempt that took longer than this asks whether it was cancelled. It is half of the time that readers wait for its report. */
const ASKS_MS = HEARS_MS / 2;

/** An entry in the log of a task: why it went on after an attempt. */
interface Pause {
  readonly kind: "pause";
  /** The number of failed attempts so far. `ended` counts all attempts that ended, released ones included. */
  readonly failed: number;
  readonly ended: number;
  /** The run was not due at its first start, so that this start was no attempt. */
  readonly delayed?: true;
  readonly delayMs: number;
  readonly dueAtMs: number;
  readonly startedAtMs?: number;
  readonly error?: ErrorRecord;
  readonly progress?: Json;
}

/**
 * The attempts of tasks. A run is a durable task: its log holds an entry for each attempt that failed or was released,
 * followed by a sleep. A run whose first attempt succeeds writes none.
 */
export class Tasks {
  readonly #runtime: WorkerRuntime;
  readonly #client: HatchetClient;
  readonly #running = new Set<Interruption>();
  readonly #live = new Set<Promise<unknown>>();
  #draining = false;
  #leave = (): void => {};
  readonly #leaving = new Promise<void>((resolve) => (this.#leave = resolve));

  constructor(runtime: WorkerRuntime, client: HatchetClient) {
    this.#runtime = runtime;
    this.#client = client;
  }

  /** Aborts the running attempts, which are then released. */
  abortAll(reason: AbortReason): void {
    for (const interruption of this.#running) interruption.abort(reason);
  }

  /** Takes no more runs; resolves when the running ones are over or released. */
  async drain(): Promise<void> {
    this.#draining = true;
    this.#leave();
    while (this.#live.size > 0) await Promise.allSettled(this.#live);
  }

  run(name: string, context: DurableContext<object>): Promise<Returned> {
    const { meta, damage } = readMeta(context.additionalMetadata(), name);
    const runId = context.taskRunExternalId();
    const run = orGiveUp(this.#client, runId, meta.name, () => {
      if (damage) throw corrupt(context.workflowRunId(), name, damage);
      return this.#attempts(meta, context);
    });
    this.#live.add(run);
    return run.finally(() => this.#live.delete(run));
  }

  async #attempts(meta: Meta, context: DurableContext<object>): Promise<Returned> {
    const log = new DurableLog(context);
    const runId = context.taskRunExternalId();
    // The run was submitted by name only: senders of signals must learn that it is no workflow.
    if (meta.kind === undefined) await putNote(this.#client, runId, "begins", { type: "began", kind: "task" });
    let last = await this.#replay(log, meta);
    const lost = log.invocation === 1 ? 0 : await this.#lost(last, runId);
    for (;;) {
      const attempt = last.failed + lost + 1;
      const startedAtMs = last.startedAtMs ?? Date.now();
      // The first start needs no note, because there always is one; the loss of a later start is only visible from its note.
      if (log.invocation > 1 || last.ended > 0)
        await putNote(this.#client, runId, `attempt ${attempt} starts`, { type: "started", attempt });
      const { decision, progress = last.progress } = await this.#attempt(context, meta, attempt, last.error);
      const kept = { startedAtMs, ...(progress !== undefined && { progress }) };
      if (decision.do === "complete")
        return { output: decision.output, taskBackend: { attempts: attempt, ...kept, finishedAtMs: Date.now() } };
      if (decision.do === "settle") {
        const { status, error, attempts = attempt } = decision;
        throw toThrown({ status, error, attempts, ...kept, finishedAtMs: Date.now() });
      }
      const failed = decision.do === "retry";
      const { delayMs } = decision;
      const error = failed ? decision.error : last.error;
      last = {
        kind: "pause",
        failed: last.failed + (failed ? 1 : 0),
        ended: last.ended + 1,
        delayMs,
        dueAtMs: Date.now() + delayMs,
        ...(error && { error }),
        ...(failed || last.startedAtMs !== undefined ? { startedAtMs } : {}),
        ...(progress !== undefined && { progress }),
      };
      await this.#pause(log, last, failed, attempt, runId);
    }
  }

  async #attempt(
    context: DurableContext<object>,
    meta: Meta,
    attempt: number,
    previousError: ErrorRecord | undefined,
  ): Promise<{ decision: Decision; progress?: Json }> {
    const interruption = new Interruption();
    const { signal } = context.abortController;
    const onAbort = (): void => {
      interruption.abort(isCancel(signal.reason) ? "cancel" : "lost");
      if (isCancel(signal.reason)) this.#note(context.taskRunExternalId(), "aborted", { type: "aborted" });
    };
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    if (this.#draining) interruption.abort("shutdown");
    this.#running.add(interruption);
    let progress: Json | undefined;
    const beganMs = performance.now();
    try {
      const decision = await this.#runtime.execute({
        id: context.workflowRunId(),
        name: meta.name,
        queue: meta.queue,
        attempt,
        input: fromInput(context.input, meta),
        headers: meta.headers ?? {},
        ...(previousError && { previousError }),
        interruption,
        progress: (value) => {
          progress = value;
          const line = `progress: ${JSON.stringify(value)}`;
          this.#note(context.taskRunExternalId(), line, { type: "progress", value });
        },
      });
      // The engine has settled the run, or given it to another worker.
      if (signal.aborted || (performance.now() - beganMs > ASKS_MS && (await this.#isSettled(context))))
        throw new TaskRunTerminatedError("cancelled");
      return { decision, ...(progress !== undefined && { progress }) };
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#running.delete(interruption);
    }
  }

  /** Whether the run has ended: the news of a cancellation may be lost with a connection, or reach a frozen process too late. */
  async #isSettled(context: DurableContext<object>): Promise<boolean> {
    try {
      return (await this.#client.runs.getDetails(context.workflowRunId())).done;
    } catch {
      return false;
    }
  }

  /** The number of starts that were lost with their worker. */
  async #lost({ ended, delayed }: Pause, runId: string): Promise<number> {
    const starts = (await readNotes(this.#client, runId)).filter(({ type }) => type === "started").length;
    return Math.max(starts + (delayed ? 0 : 1) - ended, 0);
  }

  /** Writes a note for those who read the run meanwhile, and does not wait for it. */
  #note(runId: string, line: string, note: Note): void {
    void putNote(this.#client, runId, line, note).catch(() => {});
  }

  /** Replays the log of earlier invocations. */
  async #replay(log: DurableLog, { runAtMs }: Meta): Promise<Pause> {
    let last: Pause = { kind: "pause", failed: 0, ended: 0, delayMs: 0, dueAtMs: 0 };
    if (runAtMs !== undefined) {
      const delayMs = Math.max(runAtMs - Date.now(), 0);
      last = await log.memo({ ...last, delayMs, dueAtMs: runAtMs, ...(delayMs > 0 && { delayed: true as const }) });
      if (last.delayed) await this.#sleep(log, last, "waiting for its time");
    }
    const { delayed } = last;
    for (;;) {
      const entry = await log.next<Pause>("pause");
      if (!entry) return last;
      last = { ...entry, ...(delayed && { delayed }) };
      await this.#sleep(log, entry, "");
    }
  }

  async #pause(log: DurableLog, pause: Pause, failed: boolean, attempt: number, runId: string): Promise<void> {
    await log.memo(pause);
    const { startedAtMs = 0, error } = pause;
    const line = failed ? `attempt ${attempt} failed: ${error?.message}` : "released";
    const note: Note = failed && error ? { type: "failed", attempt, error, startedAtMs } : { type: "released", attempt: attempt - 1 };
    await putNote(this.#client, runId, line, note).catch(() => {});
    await this.#sleep(log, pause, line);
  }

  async #sleep(log: DurableLog, { delayMs, dueAtMs }: Pause, label: string): Promise<void> {
    const { done } = await log.sleep(delayMs, label);
    if (this.#draining) await log.release(this.#client, label);
    if (dueAtMs > Date.now() + STAYS_MS) await log.evict(this.#client, label);
    await Promise.race([done, this.#leaving]);
    if (this.#draining) await log.release(this.#client, label);
  }
}

function isCancel(reason: unknown): boolean {
  return isTaskRunTerminatedError(reason) && (reason as { reason?: string }).reason !== "evicted";
}
