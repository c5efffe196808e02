import { cancelledRecord, type Json, type RunRecord } from "@task-backend/core/adapter";
import type { Client, WorkflowExecutionDescription } from "@temporalio/client";
import {
  decodeFromPayloadsAtIndex,
  decodeOptionalFailureToOptionalError,
  encodeToPayloads,
} from "@temporalio/common/lib/internal-non-workflow/codec-helpers.js";
import { openRecord, toRunId } from "./mapping.ts";
import { ONE_ACTIVITY, withoutUnheard, type Beat, type Meta, type TaskEnd } from "./wire.ts";

/*
 * A task on a server without activities outside workflows: a workflow of one activity. While it is open, the server
 * tells its state; afterwards its short history does, because the activity returns its last heartbeat with its output.
 */

/** Covers the whole history of a task, and enough of a real workflow's to recognise it. */
const EVENTS = 40;
/** The states of an activity that has started, or was asked to end. */
const RUNNING: readonly number[] = [2, 3];

const ms = (time: { seconds?: unknown; nanos?: number | null } | null | undefined): number | undefined =>
  time ? Number(time.seconds ?? 0) * 1_000 + Math.floor((time.nanos ?? 0) / 1e6) : undefined;

/** The last failure of a workflow's activity of that type, as it was thrown. */
export function lastFailureOf(client: Client, { raw }: WorkflowExecutionDescription, type: string): Promise<Error | undefined> {
  const activity = raw.pendingActivities?.find(({ activityType }) => activityType?.name === type);
  return decodeOptionalFailureToOptionalError(client.options.loadedDataConverter, activity?.lastFailure);
}

/** The record of an open task. Undefined when it is no task, or no worker has started it. */
export async function openTask(client: Client, id: string, description: WorkflowExecutionDescription): Promise<RunRecord | undefined> {
  const { raw, type: name, taskQueue: queue, startTime } = description;
  const activity = raw.pendingActivities?.find(({ activityId }) => activityId === ONE_ACTIVITY);
  if (!activity) return undefined;
  const converter = client.options.loadedDataConverter;
  const attempt = activity.attempt ?? 1;
  const details = activity.heartbeatDetails?.payloads;
  const last = details?.length ? await decodeFromPayloadsAtIndex<Beat>(converter, 0, details) : {};
  return openRecord({
    id: toRunId({ kind: "workflow", id }),
    name,
    queue,
    submittedAtMs: startTime.getTime(),
    dueAtMs: 0,
    attempt,
    running: RUNNING.includes(activity.state ?? 0),
    lastStartedAtMs: ms(activity.lastStartedTime),
    lastFailure: await decodeOptionalFailureToOptionalError(converter, activity.lastFailure),
    beat: withoutUnheard(last, attempt),
  });
}

/** The attempts and heartbeat of a settled task. Undefined when it is no task. */
export async function endOf(
  client: Client,
  id: string,
  description: WorkflowExecutionDescription,
): Promise<Omit<TaskEnd, "output"> | undefined> {
  if (description.historyLength > EVENTS) return undefined;
  const events = await firstEvents(client, id, description.runId);
  if (!events.some(schedulesTask)) return undefined;
  const converter = client.options.loadedDataConverter;
  for (const event of events) {
    const ends =
      event.activityTaskCompletedEventAttributes?.result ??
      event.activityTaskCanceledEventAttributes?.details ??
      event.workflowExecutionTerminatedEventAttributes?.details;
    const end = ends?.payloads?.length ? await decodeFromPayloadsAtIndex<Partial<TaskEnd>>(converter, 0, ends.payloads) : undefined;
    if (end?.attempts !== undefined) return { attempts: end.attempts, beat: end.beat ?? {} };
  }
  const started = events.findLast((event) => event.activityTaskStartedEventAttributes);
  const startedAtMs = ms(started?.eventTime);
  const attempts = started?.activityTaskStartedEventAttributes?.attempt ?? 0;
  return { attempts, beat: startedAtMs === undefined ? {} : { startedAtMs } };
}

/** Whether a workflow is known to be a task, by its submitter or a worker. */
export async function isTask(client: Client, id: string): Promise<boolean> {
  const events = await firstEvents(client, id);
  const input = events[0]?.workflowExecutionStartedEventAttributes?.input?.payloads ?? [];
  const meta = input.length > 1 ? await decodeFromPayloadsAtIndex<Meta | null>(client.options.loadedDataConverter, 1, input) : undefined;
  return meta?.kind === "task" || events.some(schedulesTask);
}

/** In an ordinary history, the start of the first workflow task is among the first events. */
const FIRST_EVENTS = 3;
const MANY_EVENTS = 1_000;
/** The state of a workflow task that a worker has taken. */
const STARTED: number = 2;

/** Whether a worker has started the workflow. Signals that came before also make its history longer. */
export async function hasBegun(client: Client, id: string, description: WorkflowExecutionDescription): Promise<boolean> {
  const { raw, status, historyLength, runId } = description;
  if (historyLength < FIRST_EVENTS) return false;
  if (status.name === "COMPLETED" || status.name === "FAILED" || status.name === "CONTINUED_AS_NEW") return true;
  if (Number(raw.pendingWorkflowTask?.state) === STARTED || raw.pendingActivities?.length || raw.pendingChildren?.length) return true;
  const isStart = (event: Events[number]): boolean => Boolean(event.workflowTaskStartedEventAttributes);
  if ((await firstEvents(client, id, runId, FIRST_EVENTS)).some(isStart)) return true;
  return historyLength > FIRST_EVENTS && (await firstEvents(client, id, runId, MANY_EVENTS)).some(isStart);
}

type Events = NonNullable<NonNullable<Awaited<ReturnType<Client["workflowService"]["getWorkflowExecutionHistory"]>>["history"]>["events"]>;

async function firstEvents(client: Client, workflowId: string, runId?: string, maximumPageSize = EVENTS): Promise<Events> {
  const { namespace } = client.options;
  const execution = { workflowId, ...(runId !== undefined && { runId }) };
  const { history } = await client.workflowService.getWorkflowExecutionHistory({ namespace, execution, maximumPageSize });
  return history?.events ?? [];
}

function schedulesTask({ activityTaskScheduledEventAttributes }: Events[number]): boolean {
  return activityTaskScheduledEventAttributes?.activityId === ONE_ACTIVITY;
}

/** Ends a waiting task without its worker; the end records its attempts and progress. */
export async function terminateTask(client: Client, id: string, { name, attempts, startedAtMs, progress }: RunRecord): Promise<void> {
  const beat: Beat = { ...(startedAtMs !== undefined && { startedAtMs }), ...(progress !== undefined && { progress }) };
  const end: TaskEnd = { attempts, beat, output: null as Json };
  await client.workflowService.terminateWorkflowExecution({
    namespace: client.options.namespace,
    workflowExecution: { workflowId: id },
    reason: cancelledRecord(name).message,
    details: { payloads: (await encodeToPayloads(client.options.loadedDataConverter, end)) ?? [] },
  });
}
