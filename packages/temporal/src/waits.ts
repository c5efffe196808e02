import { setTimeout as pause } from "node:timers/promises";
import type { Json, Settlement } from "@task-backend/core/adapter";
import type { TemporalConnection } from "./connection.ts";
import { isAway, isNotFound, toError } from "./errors.ts";
import { isUndecided, nameOf, toRef, toSettlement, type RunRef } from "./mapping.ts";
import type { Runs } from "./runs.ts";

const AWAY_MS = 500;

/** Waits for one run with a long poll, because Temporal has no stream of all runs. The poll ends with the wait. */
export async function wait(
  connection: TemporalConnection,
  runs: Runs,
  runId: string,
  signal: AbortSignal | undefined,
): Promise<Settlement | undefined> {
  const ref = toRef(runId);
  if (!ref) return undefined;
  return connection.waiting(async (aborted) => {
    // The server does not know a retention that is shorter than the namespace's.
    const isKept = connection.settings.retentionMs === undefined || (await connection.call(() => runs.read(runId))) !== undefined;
    if (!isKept) return undefined;
    for (;;) {
      try {
        return await settled(runs, runId, ref);
      } catch (error) {
        // A wait goes on while the server is unreachable.
        if (aborted.aborted || !isAway(error)) throw toError(error, connection.settings.address);
        await pause(AWAY_MS, undefined, { signal: aborted });
      }
    }
  }, signal);
}

async function settled(runs: Runs, runId: string, ref: RunRef): Promise<Settlement | undefined> {
  const handle = ref.kind === "activity" ? runs.activity(ref.id) : runs.workflow(ref.id);
  const name = nameOf(ref.id);
  try {
    return { id: runId, name, status: "completed", output: ((await handle.result()) ?? null) as Json };
  } catch (error) {
    if (isNotFound(error)) return undefined;
    const type = (error as Error).name;
    const hasFailed = type === "WorkflowFailedError" || type === "ActivityExecutionFailedError";
    if (!hasFailed) throw error;
    return isUndecided(error) ? runs.read(runId) : toSettlement(runId, name, error);
  }
}
