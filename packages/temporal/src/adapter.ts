import { setMaxListeners } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import {
  BackendUnavailableError,
  mapInLanes,
  type Adapter,
  type AdapterContext,
  type Json,
  type Logger,
  type RunRecord,
  type RunRequest,
  type Settlement,
  type SignalRequest,
  type SubmitOutcome,
} from "@task-backend/core/adapter";
import {
  ActivityExecutionAlreadyStartedError,
  WorkflowExecutionAlreadyStartedError,
  type WorkflowExecutionDescription,
} from "@temporalio/client";
import { CancelledFailure } from "@temporalio/common";
import type { ForwardedWorkflow } from "./activities.ts";
import { activityOptions, priorityOf } from "./activity-options.ts";
import { capabilitiesOf, type Observed } from "./capabilities.ts";
import { grpcCode, isAway, isNotFound, TemporalConnection } from "./connection.ts";
import {
  activityRecord,
  failedAs,
  isUndecided,
  newId,
  toRef,
  toRunId,
  toSettlement,
  toUnavailable,
  workflowRecord,
  type RunRef,
} from "./mapping.ts";
import { isWorkflow, nativeOf } from "./native.ts";
import { endOf, isTask, lastFailureOf, openTask, terminateTask } from "./one-activity.ts";
import { parseOptions, type TemporalOptions, type TemporalSettings } from "./options.ts";
import { argumentsOf, TICK, toMeta, type Meta, type TaskEnd } from "./wire.ts";
import { TemporalWorker } from "./worker.ts";

/**
 * An adapter over Temporal, for `createBackend`.
 * @throws ConfigurationError
 * @example
 * const backend = await createBackend(temporal({ address: "localhost:7233", namespace: "default" }));
 */
export function temporal(options: TemporalOptions = {}): Adapter {
  return makeAdapter(parseOptions(options, process.env));
}

/** What `TASK_BACKEND_TYPE=temporal` loads. */
export function createAdapter({ url, options, env, log, retentionMs }: AdapterContext): Adapter {
  const given = typeof options === "object" && options !== null ? options : {};
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return makeAdapter(parseOptions({ ...retention, ...given, ...(url !== undefined && { url }) }, env), log);
}

/** gRPC's number for what is too late. */
const FAILED_PRECONDITION = 9;
const AWAY_MS = 500;
const FORWARD_BEAT_MS = 1_000;
/** How many starts are under way at a time, of many submitted together. */
const SUBMIT_LANES = 100;

function makeAdapter(settings: TemporalSettings, log?: Logger): Adapter {
  let connection: TemporalConnection | undefined;
  let observed: Observed | undefined;
  const closing = new AbortController();
  // Each wait listens to it.
  setMaxListeners(0, closing.signal);

  const open = (): TemporalConnection => {
    if (!connection || closing.signal.aborted) throw new BackendUnavailableError("The temporal backend is not connected.");
    return connection;
  };
  const call = async <T>(run: () => Promise<T>): Promise<T> => {
    try {
      return await run();
    } catch (error) {
      throw toUnavailable(error, settings.address);
    }
  };
  const activityOf = (id: string) => open().client.activity.getHandle<Json>(id);
  const workflowOf = (id: string) => open().client.workflow.getHandle(id);

  const submitOne = async (request: RunRequest, again = false): Promise<SubmitOutcome> => {
    const id = newId(request);
    const reuse = again ? "ALLOW_DUPLICATE" : "REJECT_DUPLICATE";
    const kind: RunRef["kind"] = !observed?.standalone || isWorkflow(request) ? "workflow" : "activity";
    const delayMs = request.runAtMs === undefined ? 0 : Math.max(request.runAtMs - Date.now(), 0);
    const { heartbeatTimeoutMs } = settings;
    const native = nativeOf(request);
    const meta: Meta = { ...toMeta(request), ...(kind === "workflow" && !isWorkflow(request) && { heartbeatTimeoutMs }) };
    const common = { taskQueue: request.queue, args: argumentsOf(request.input, meta), priority: priorityOf(request.priority) };
    const startDelay = delayMs > 0 ? { startDelay: Math.ceil(delayMs) } : {};
    const runId = toRunId({ kind, id });
    try {
      if (kind === "workflow") {
        const policies = { workflowIdReusePolicy: reuse, workflowIdConflictPolicy: "FAIL" } as const;
        await open().client.workflow.start(request.name, { ...native.workflow, ...common, ...startDelay, ...policies, workflowId: id });
      } else {
        const policies = { idReusePolicy: reuse, idConflictPolicy: "FAIL" } as const;
        const ours = activityOptions(request, heartbeatTimeoutMs);
        await open().client.activity.start(request.name, { ...ours, ...native.activity, ...common, ...startDelay, ...policies, id });
      }
      return { id: runId, deduplicated: false };
    } catch (error) {
      const started = error instanceof WorkflowExecutionAlreadyStartedError || error instanceof ActivityExecutionAlreadyStartedError;
      if (!started) throw error;
      // Past the retention that was asked for, which may be shorter than the namespace's, the key is free again.
      return again || (await read(runId)) ? { id: runId, deduplicated: true } : submitOne(request, true);
    }
  };

  /** Undefined for unknown ids and past the retention. */
  const read = async (runId: string): Promise<RunRecord | undefined> => {
    const ref = toRef(runId);
    if (!ref) return undefined;
    try {
      const record = ref.kind === "activity" ? await readActivity(runId, ref.id) : await readWorkflow(runId, ref.id);
      const retentionMs = observed?.retentionMs ?? 0;
      return record.finishedAtMs !== undefined && record.finishedAtMs <= Date.now() - retentionMs ? undefined : record;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  };
  const readActivity = async (runId: string, id: string): Promise<RunRecord> => {
    const include = { includeOutcome: true, includeHeartbeatDetails: true, includeLastFailure: true };
    return activityRecord(runId, await activityOf(id).describe(include));
  };
  const readWorkflow = async (runId: string, id: string): Promise<RunRecord> => {
    const { client } = open();
    const description = await workflowOf(id).describe();
    const record = workflowRecord(runId, description, await lastFailureOf(client, description, TICK));
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
      const output = ((await workflowOf(id).result()) ?? null) as Json;
      return { ...rest, ...finished, ...(told && how(told)), status: "completed", output };
    } catch (error) {
      const { beat, ...failed } = failedAs(record.name, error);
      return { ...rest, ...finished, ...(told && how(told)), ...failed, ...(beat && how({ attempts: failed.attempts ?? 1, beat })) };
    }
  };

  /** One long poll of the engine a run: it has no stream of all. */
  const settled = async (runId: string, ref: RunRef, signal: AbortSignal | undefined): Promise<Settlement | undefined> => {
    const handle = ref.kind === "activity" ? activityOf(ref.id) : workflowOf(ref.id);
    const name = nameOf(ref.id);
    try {
      return { id: runId, name, status: "completed", output: ((await handle.result()) ?? null) as Json };
    } catch (error) {
      if (isNotFound(error)) return undefined;
      const type = (error as Error).name;
      const hasFailed = type === "WorkflowFailedError" || type === "ActivityExecutionFailedError";
      if (hasFailed && !isUndecided(error)) return toSettlement(runId, name, error);
      // A wait goes on when the server does.
      const again = async (cause: unknown): Promise<Settlement | undefined> => {
        if (closing.signal.aborted || signal?.aborted || !isAway(cause)) throw toUnavailable(cause, settings.address);
        await pause(AWAY_MS);
        return settled(runId, ref, signal);
      };
      return hasFailed ? read(runId).catch(again) : again(error);
    }
  };

  const cancelWorkflow = async (id: string): Promise<"requested" | "settled"> => {
    const description = await workflowOf(id).describe();
    if (!isOpen(description)) return "settled";
    const task = await openTask(open().client, id, description);
    try {
      // It has not begun, or waits for a retry, and may wait long for a worker: there is nobody to ask.
      if (task && task.status !== "running") await terminateTask(open().client, id, task);
      else if (description.historyLength <= 2) await workflowOf(id).terminate("cancelled");
      else await workflowOf(id).cancel();
      return "requested";
    } catch (error) {
      // It was there just now: it has ended since, or by this call, whose answer was lost and which the SDK repeated.
      if (isNotFound(error)) return "settled";
      throw error;
    }
  };
  const cancelActivity = async (id: string): Promise<"requested" | "settled"> => {
    const { status } = await activityOf(id).describe();
    if (status !== "RUNNING" && status !== "PAUSED") return "settled";
    try {
      await activityOf(id).cancel("cancelled");
      return "requested";
    } catch (error) {
      if (grpcCode(error) === FAILED_PRECONDITION) return "settled";
      throw error;
    }
  };

  const forward = async (forwarded: ForwardedWorkflow): Promise<void> => {
    const { activityId, name, queue, input, meta } = forwarded;
    const workflowId = forwardedId(activityId);
    await open()
      .client.workflow.start(name, { workflowId, taskQueue: queue, args: [input, meta], workflowIdReusePolicy: "REJECT_DUPLICATE" })
      .catch((error: unknown) => {
        if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
      });
    void watch(forwarded, workflowId).catch((error: unknown) =>
      log?.warn(`Run ${activityId} is left to another worker: ${(error as Error).message}`),
    );
  };

  /** Keeps the activity of a workflow that was submitted by name only alive, and completes it with the workflow's end. */
  const watch = async ({ taskToken, beat, serving }: ForwardedWorkflow, workflowId: string): Promise<void> => {
    const { activity, workflow } = open().client;
    const handle = workflow.getHandle(workflowId);
    let ended = false;
    const beating = (async (): Promise<void> => {
      while (!ended && serving() && !closing.signal.aborted) {
        await activity.heartbeat(taskToken, beat).catch((error: unknown) => {
          if ((error as Error).name === "ActivityCancelledError") return handle.cancel();
          if (isNotFound(error)) ended = true;
          return undefined;
        });
        await pause(FORWARD_BEAT_MS, undefined, { ref: false });
      }
    })();
    try {
      const output = ((await handle.result()) ?? null) as Json;
      await activity.complete(taskToken, output);
    } catch (error) {
      const { cause, name } = error as Error;
      if (name !== "WorkflowFailedError") throw error;
      if (cause instanceof CancelledFailure) await activity.reportCancellation(taskToken);
      else await activity.fail(taskToken, cause ?? error);
    } finally {
      ended = true;
      await beating;
    }
  };

  return {
    connect: () =>
      call(async () => {
        connection = new TemporalConnection(settings);
        observed = await connection.open();
        log?.info(`temporal at ${settings.address}, namespace ${settings.namespace}`);
        return capabilitiesOf(settings, observed);
      }),

    submit: (runs) => call(() => mapInLanes(runs, SUBMIT_LANES, (run) => submitOne(run))),

    get: (id) => call(() => read(id)),

    wait: (id, signal) => {
      open();
      const ref = toRef(id);
      if (!ref) return Promise.resolve(undefined);
      // A shorter retention than the namespace's is ours to keep.
      const kept = settings.retentionMs === undefined ? Promise.resolve(true) : call(async () => (await read(id)) !== undefined);
      return aborted(
        kept.then((known) => (known ? settled(id, ref, signal) : undefined)),
        signal,
        closing.signal,
      );
    },

    cancel: (id) =>
      call(async () => {
        const ref = toRef(id);
        if (!ref) return "unknown";
        try {
          return await (ref.kind === "activity" ? cancelActivity(ref.id) : cancelWorkflow(ref.id));
        } catch (error) {
          if (isNotFound(error)) return "unknown";
          throw error;
        }
      }),

    signal: (id, { name, payload, dedupeId }: SignalRequest) =>
      call(async () => {
        const ref = toRef(id);
        if (!ref) return "unknown";
        const record = await read(id);
        if (!record) return "unknown";
        if (record.finishedAtMs !== undefined) return "settled";
        if (ref.kind === "workflow" && !observed?.standalone && (await isTask(open().client, ref.id))) return "not-a-workflow";
        const args = [payload, ...(dedupeId === undefined ? [] : [{ dedupeId }])];
        try {
          await workflowOf(ref.kind === "workflow" ? ref.id : forwardedId(ref.id)).signal(name, ...args);
          return "accepted";
        } catch (error) {
          if (!isNotFound(error)) throw error;
          return ref.kind === "workflow" ? "settled" : "not-a-workflow";
        }
      }),

    startWorker: (request, runtime) =>
      call(() =>
        TemporalWorker.start(open(), settings, request, runtime, {
          forward,
          heartbeat: (token, beat) => open().client.activity.heartbeat(token, beat),
          isCancelRequested: async (id) => (await workflowOf(id).describe()).raw.workflowExtendedInfo?.cancelRequested === true,
          closed: (id) => workflowOf(id).result(),
          tasksAreWorkflows: !observed?.standalone,
        }),
      ),

    close: async () => {
      closing.abort(new BackendUnavailableError("The temporal backend was closed."));
      await connection?.close();
    },
  };
}

function isOpen({ status }: WorkflowExecutionDescription): boolean {
  return status.name === "RUNNING" || status.name === "PAUSED";
}

function forwardedId(activityId: string): string {
  return `${activityId}.workflow`;
}

/** Our ids begin with the name. */
function nameOf(id: string): string {
  return id.replace(/-(?:key-[0-9a-f]{40}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.\d+)*$/, "");
}

function aborted<T>(work: Promise<T>, ...signals: (AbortSignal | undefined)[]): Promise<T> {
  work.catch(() => {});
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(signals.find((signal) => signal?.aborted)?.reason as Error);
    const forget = (): void => {
      for (const signal of signals) signal?.removeEventListener("abort", abort);
    };
    void work.then(resolve, reject).finally(forget);
    for (const signal of signals) {
      if (signal?.aborted) abort();
      signal?.addEventListener("abort", abort, { once: true });
    }
  });
}
