import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { detailsOf, isWorkflowRun } from "./records.ts";
import { sendWake } from "./wakes.ts";

/** Cancels a task at once; asks a workflow that has begun, which may clean up. */
export async function cancelRun(client: HatchetClient, id: string): Promise<"requested" | "settled" | "unknown"> {
  const details = await detailsOf(client, id);
  if (!details) return "unknown";
  if (details.done) return "settled";
  const early = (details.meta.runAtMs ?? 0) > Date.now();
  if (details.begun && !early && (await isWorkflowRun(client, details))) await sendWake(client, id, { entry: { type: "cancel" } });
  else await client.runs.cancel({ ids: [id] });
  return "requested";
}
