import { setTimeout as pause } from "node:timers/promises";
import type { Json, SignalRequest } from "@task-backend/core/adapter";
import type { ActivityExecutionDescription } from "@temporalio/client";
import type { TemporalConnection } from "./connection.ts";
import { isNotFound } from "./errors.ts";
import { retryDelay } from "./failure.ts";
import { forwardedId, toRef } from "./mapping.ts";
import { isTask } from "./one-activity.ts";
import { isAlreadyStarted, type Runs } from "./runs.ts";
import { readMeta, type Beat, type Meta } from "./wire.ts";

export type SignalOutcome = "accepted" | "settled" | "unknown" | "not-a-workflow";

/** A worker that has just taken a run says within a heartbeat what its name is. */
const LOOKS = 8;
const LOOK_MS = 250;

export async function signal(connection: TemporalConnection, runs: Runs, id: string, request: SignalRequest): Promise<SignalOutcome> {
  const ref = toRef(id);
  if (!ref) return "unknown";
  // One call where all goes well: why not is asked only of one that is not open.
  const mayBeOpen = ref.kind === "workflow" && connection.observed.standalone;
  if (mayBeOpen && (await send(runs, ref.id, request))) return "accepted";
  const record = await runs.read(id);
  if (!record) return "unknown";
  if (record.finishedAtMs !== undefined || mayBeOpen) return "settled";
  if (ref.kind === "activity") return signalByName(connection, runs, ref.id, request);
  if (await isTask(connection.client, ref.id)) return "not-a-workflow";
  return (await send(runs, ref.id, request)) ? "accepted" : "settled";
}

/** False when there is no such workflow that is open. */
async function send(runs: Runs, workflowId: string, request: SignalRequest): Promise<boolean> {
  try {
    await runs.workflow(workflowId).signal(request.name, ...argumentsOf(request));
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

/**
 * A run that was submitted by its name only may be a workflow: then another execution goes on around it, which the worker that takes
 * it starts. A signal that comes before that starts it, and waits in its history; it ends at once if the name turns out to be a task's.
 */
async function signalByName(connection: TemporalConnection, runs: Runs, id: string, request: SignalRequest): Promise<SignalOutcome> {
  const workflowId = forwardedId(id);
  for (let looks = 1; ; looks++) {
    const description = await runs.activity(id).describe({ includeInput: true, includeHeartbeatDetails: true });
    const { status, runState } = description;
    if (status !== "RUNNING" && status !== "PAUSED") return "settled";
    const [input = null, given] = (await description.getInput<[Json?, unknown?]>()) ?? [];
    const meta = readMeta(given ?? {});
    if (meta?.kind !== undefined) return "not-a-workflow";
    const beat: Beat = (description.hasHeartbeatDetails && (await description.getHeartbeatDetails<Beat | undefined>())) || {};
    if (beat.kind === "task") return "not-a-workflow";
    if (await send(runs, workflowId, request)) return "accepted";
    if (runState !== "STARTED" || looks === LOOKS) return start(connection, description, workflowId, input, meta ?? {}, request);
    await pause(LOOK_MS);
  }
}

async function start(
  { client }: TemporalConnection,
  description: ActivityExecutionDescription,
  workflowId: string,
  input: Json,
  meta: Meta,
  request: SignalRequest,
): Promise<SignalOutcome> {
  const { activityType, taskQueue, priority, scheduleTime, startDelayMs } = description;
  const delayMs = (scheduleTime?.getTime() ?? 0) + (startDelayMs ?? 0) - Date.now();
  try {
    await client.workflow.signalWithStart(activityType, {
      workflowId,
      taskQueue,
      args: [input, { ...meta, forwarded: true } satisfies Meta],
      signal: request.name,
      signalArgs: argumentsOf(request),
      workflowIdReusePolicy: "REJECT_DUPLICATE",
      ...(priority && { priority }),
      ...(delayMs > 0 && { startDelay: retryDelay(delayMs) }),
    });
    return "accepted";
  } catch (error) {
    // It has ended since.
    if (isAlreadyStarted(error)) return "settled";
    throw error;
  }
}

function argumentsOf({ payload, dedupeId }: SignalRequest): unknown[] {
  return [payload, ...(dedupeId === undefined ? [] : [{ dedupeId }])];
}
