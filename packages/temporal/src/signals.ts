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

/** How often a started run is read again: its worker tells the kind of the name within a heartbeat. */
const LOOKS = 8;
const LOOK_MS = 250;

export async function signal(connection: TemporalConnection, runs: Runs, id: string, request: SignalRequest): Promise<SignalOutcome> {
  const ref = toRef(id);
  if (!ref) return "unknown";
  // Usually one call is enough: the reason is asked only when the workflow is not open.
  const mayBeOpen = ref.kind === "workflow" && connection.observed.standalone;
  if (mayBeOpen && (await send(runs, ref.id, request))) return "accepted";
  const record = await runs.read(id);
  if (!record) return "unknown";
  if (record.finishedAtMs !== undefined || mayBeOpen) return "settled";
  if (ref.kind === "activity") return signalByName(connection, runs, ref.id, request);
  if (await isTask(connection.client, ref.id)) return "not-a-workflow";
  return (await send(runs, ref.id, request)) ? "accepted" : "settled";
}

/** Sends a signal; false when there is no open workflow with that id. */
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
 * Signals a run that was submitted by its name only. If it is a workflow, its worker starts another execution for it. A signal that
 * comes earlier starts that execution and waits in its history; if the name turns out to be a task's, the execution ends at once.
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
