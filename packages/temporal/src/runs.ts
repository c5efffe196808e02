import type { ErrorRecord, Json, RunRecord, RunRequest, SubmitOutcome, TaskBackendError } from "@task-backend/core/adapter";
import {
  ActivityExecutionAlreadyStartedError,
  WorkflowExecutionAlreadyStartedError,
  type ActivityHandle,
  type WorkflowExecutionDescription,
  type WorkflowHandle,
} from "@temporalio/client";
import { activityOptions, priorityOf } from "./activity-options.ts";
import type { TemporalConnection } from "./connection.ts";
import { FAILED_PRECONDITION, grpcCode, isNotFound, toError } from "./errors.ts";
import { retryDelay } from "./failure.ts";
import { activityRecord, failedAs, forwardedId, newId, toRef, toRunId, workflowRecord, type RunRef } from "./mapping.ts";
import { isWorkflow, nativeOf } from "./native.ts";
import { endOf, hasBegun, lastFailureOf, openTask, terminateTask } from "./one-activity.ts";
import { argumentsOf, CANCELLED_MEMO, readMeta, TICK, toMeta, type Meta, type TaskEnd } from "./wire.ts";

/** Submits, reads and cancels runs, which are activities and workflows of Temporal. */
export class Runs {
  readonly #connection: TemporalConnection;

  constructor(connection: TemporalConnection) {
    this.#connection = connection;
  }

  activity(id: string): ActivityHandle<Json> {
    return this.#connection.client.activity.getHandle<Json>(id);
  }

  workflow(id: string): WorkflowHandle {
    return this.#connection.client.workflow.getHandle(id);
  }

  /** Submits one run; a refusal is its own outcome and does not affect other runs. */
  async submit(request: RunRequest): Promise<SubmitOutcome> {
    try {
      return await this.#submit(request);
    } catch (error) {
      return { error: toError(error, this.#connection.settings.address) as TaskBackendError };
    }
  }

  async #submit(request: RunRequest, again = false): Promise<SubmitOutcome> {
    const { client, observed, settings } = this.#connection;
    const id = newId(request);
    const reuse = again ? "ALLOW_DUPLICATE" : "REJECT_DUPLICATE";
    const kind: RunRef["kind"] = !observed.standalone || isWorkflow(request) ? "workflow" : "activity";
    const delayMs = request.runAtMs === undefined ? 0 : Math.max(request.runAtMs - Date.now(), 0);
    const { heartbeatTimeoutMs } = settings;
    const native = nativeOf(request);
    const meta: Meta = { ...toMeta(request), ...(kind === "workflow" && !isWorkflow(request) && { heartbeatTimeoutMs }) };
    const common = { taskQueue: request.queue, args: argumentsOf(request.input, meta), priority: priorityOf(request.priority) };
    const startDelay = delayMs > 0 ? { startDelay: retryDelay(delayMs) } : {};
    const runId = toRunId({ kind, id });
    try {
      if (kind === "workflow") {
        const policies = { workflowIdReusePolicy: reuse, workflowIdConflictPolicy: "FAIL" } as const;
        await client.workflow.start(request.name, { ...native.workflow, ...common, ...startDelay, ...policies, workflowId: id });
      } else {
        const policies = { idReusePolicy: reuse, idConflictPolicy: "FAIL" } as const;
        const ours = activityOptions(request, heartbeatTimeoutMs);
        await client.activity.start(request.name, { ...ours, ...native.activity, ...common, ...startDelay, ...policies, id });
      }
      return { id: runId, deduplicated: false };
    } catch (error) {
      if (!isAlreadyStarted(error)) throw error;
      // The key is free again after the configured retention, which may be shorter than the namespace's.
      return again || (await this.read(runId)) ? { id: runId, deduplicated: true } : this.#submit(request, true);
    }
  }

  // ---- reading ----

  /** Reads a record; undefined for unknown ids and past the retention. */
  async read(runId: string): Promise<RunRecord | undefined> {
    const ref = toRef(runId);
    if (!ref) return undefined;
    try {
      const record = ref.kind === "activity" ? await this.#readActivity(runId, ref.id) : await this.#readWorkflow(runId, ref.id);
      const { retentionMs } = this.#connection.observed;
      return record.finishedAtMs !== undefined && record.finishedAtMs <= Date.now() - retentionMs ? undefined : record;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async #readActivity(runId: string, id: string): Promise<RunRecord> {
    const include = { includeOutcome: true, includeHeartbeatDetails: true, includeLastFailure: true };
    return activityRecord(runId, await this.activity(id).describe(include));
  }

  async #readWorkflow(runId: string, id: string): Promise<RunRecord> {
    const { client } = this.#connection;
    const description = await this.workflow(id).describe();
    const begun = await hasBegun(client, id, description);
    const record = workflowRecord(runId, description, begun, await lastFailureOf(client, description, TICK));
    if (isOpen(description)) return (await openTask(client, id, description)) ?? record;
    const { error: _, ...rest } = record;
    const { startedAtMs = record.submittedAtMs, attempts } = record;
    const finished = { attempts, startedAtMs, finishedAtMs: description.closeTime?.getTime() ?? Date.now() };
    const told = await endOf(client, id, description);
    const how = ({ attempts: charged, beat }: Pick<TaskEnd, "attempts" | "beat">) => ({
      attempts: charged,
      ...(beat.startedAtMs !== undefined && { startedAtMs: beat.startedAtMs }),
      ...(beat.progress !== undefined && { progress: beat.progress }),
    });
    try {
      const output = ((await this.workflow(id).result()) ?? null) as Json;
      return { ...rest, ...finished, ...(told && how(told)), status: "completed", output };
    } catch (error) {
      if ((error as Error).name !== "WorkflowFailedError") throw error;
      const { beat, ...failed } = failedAs(record.name, error);
      const why = failed.status === "cancelled" ? (description.memo?.[CANCELLED_MEMO] as ErrorRecord | undefined) : undefined;
      return {
        ...rest,
        ...finished,
        ...(told && how(told)),
        ...failed,
        ...(why && { error: why }),
        ...(beat && how({ attempts: failed.attempts ?? 1, beat })),
      };
    }
  }

  // ---- cancelling ----

  async cancel(runId: string): Promise<"requested" | "settled" | "unknown"> {
    const ref = toRef(runId);
    if (!ref) return "unknown";
    try {
      return await (ref.kind === "activity" ? this.#cancelActivity(ref.id) : this.cancelWorkflow(ref.id));
    } catch (error) {
      if (isNotFound(error)) return "unknown";
      throw error;
    }
  }

  /** Cancels a workflow, or a task that is one. */
  async cancelWorkflow(id: string): Promise<"requested" | "settled"> {
    const { client } = this.#connection;
    const description = await this.workflow(id).describe();
    if (!isOpen(description)) return "settled";
    const task = await openTask(client, id, description);
    try {
      // It has not started, or waits for a retry: the wait for a worker may be long, and no worker needs to be asked.
      if (task && task.status !== "running") await terminateTask(client, id, task);
      else if (!(await hasBegun(client, id, description))) await this.workflow(id).terminate("cancelled");
      else await this.workflow(id).cancel();
      return "requested";
    } catch (error) {
      // It existed a moment ago. It has ended since, perhaps by this call, if its answer was lost and the SDK repeated it.
      if (isNotFound(error)) return "settled";
      throw error;
    }
  }

  async #cancelActivity(id: string): Promise<"requested" | "settled"> {
    const description = await this.activity(id).describe({ includeInput: true });
    if (description.status !== "RUNNING" && description.status !== "PAUSED") return "settled";
    try {
      await this.activity(id).cancel("cancelled");
    } catch (error) {
      if (grpcCode(error) === FAILED_PRECONDITION) return "settled";
      throw error;
    }
    // A run submitted by name only may have a workflow, which nobody watches if its worker is lost or has not started yet.
    const [, meta] = (await description.getInput<[unknown, unknown]>().catch(() => undefined)) ?? [];
    if (readMeta(meta ?? {})?.kind === undefined) await this.cancelWorkflow(forwardedId(id)).catch(ignoreNotFound);
    return "requested";
  }
}

export function isAlreadyStarted(error: unknown): boolean {
  return error instanceof WorkflowExecutionAlreadyStartedError || error instanceof ActivityExecutionAlreadyStartedError;
}

function isOpen({ status }: WorkflowExecutionDescription): boolean {
  return status.name === "RUNNING" || status.name === "PAUSED";
}

function ignoreNotFound(error: unknown): void {
  if (!isNotFound(error)) throw error;
}
