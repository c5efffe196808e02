import { setTimeout as pause } from "node:timers/promises";
import type { Json, Logger } from "@task-backend/core/adapter";
import { CancelledFailure } from "@temporalio/common";
import type { ForwardedWorkflow } from "./activities.ts";
import type { TemporalConnection } from "./connection.ts";
import { isNotFound } from "./errors.ts";
import { forwardedId } from "./mapping.ts";
import { isAlreadyStarted, type Runs } from "./runs.ts";

const BEAT_MS = 1_000;

/**
 * Runs a workflow that was submitted as an activity, by its name only, and completes the activity with its result.
 * Resolves once the workflow has started.
 */
export async function forward(connection: TemporalConnection, runs: Runs, forwarded: ForwardedWorkflow, log?: Logger): Promise<void> {
  const { activityId, name, queue, input, meta, priorityKey } = forwarded;
  const workflowId = forwardedId(activityId);
  const { workflow } = connection.client;
  try {
    await workflow.start(name, {
      workflowId,
      taskQueue: queue,
      args: [input, meta],
      workflowIdReusePolicy: "REJECT_DUPLICATE",
      ...(priorityKey !== undefined && { priority: { priorityKey } }),
    });
  } catch (error) {
    // An earlier attempt or a signal has started it.
    if (!isAlreadyStarted(error)) throw error;
  }
  void watch(connection, runs, forwarded, workflowId).catch((error: unknown) => {
    if (!connection.closed.aborted && !forwarded.stopped.aborted)
      log?.warn(`Run activity:${activityId} is left to another worker: ${(error as Error).message}`);
  });
}

/** Keeps the activity alive while its workflow goes on, and forwards a cancellation. */
async function watch(
  connection: TemporalConnection,
  runs: Runs,
  { activityId, taskToken, beat, stopped }: ForwardedWorkflow,
  workflowId: string,
) {
  const { activity } = connection.client;
  const handle = runs.workflow(workflowId);
  const end = new AbortController();
  let isCancelled = false;
  const cancel = async (): Promise<void> => {
    if (isCancelled) return;
    isCancelled = true;
    await handle.cancel();
  };
  const beating = (async (): Promise<void> => {
    while (![end.signal, stopped, connection.closed].some(({ aborted }) => aborted)) {
      try {
        await activity.heartbeat(taskToken, beat);
      } catch (error) {
        if ((error as Error).name === "ActivityCancelledError") await cancel().catch(() => (isCancelled = false));
        else if (isNotFound(error)) {
          // The activity was ended from Temporal's side, or another worker owns it by now.
          if ((await runs.activity(activityId).describe()).status !== "RUNNING") await cancel();
          return end.abort(error);
        }
      }
      await pause(BEAT_MS, undefined, { ref: false, signal: end.signal });
    }
  })();
  beating.catch(() => {});
  try {
    const output = ((await connection.waiting(() => handle.result(), stopped, end.signal)) ?? null) as Json;
    await activity.complete(taskToken, output);
  } catch (error) {
    const { cause, name } = error as Error;
    if (name !== "WorkflowFailedError") throw error;
    if (cause instanceof CancelledFailure) await activity.reportCancellation(taskToken);
    else await activity.fail(taskToken, cause ?? error);
  } finally {
    end.abort(new Error("The workflow has ended."));
    await beating.catch(() => {});
  }
}
