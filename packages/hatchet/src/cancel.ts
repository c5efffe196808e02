import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { Accepted } from "./accepted.ts";
import { putNote } from "./notes.ts";
import { detailsOf, isWorkflowRun, timesOf } from "./records.ts";
import { sendWake } from "./wakes.ts";

/** Cancels a task at once; asks a workflow that has begun, which may clean up. */
export async function cancelRun(client: HatchetClient, id: string, accepted: Accepted): Promise<"requested" | "settled" | "unknown"> {
  const details = await detailsOf(client, id, accepted);
  if (!details) return "unknown";
  if (details.done) return "settled";
  const early = (details.meta.runAtMs ?? 0) > Date.now();
  if (details.begun && !early && (await isWorkflowRun(client, details))) await sendWake(client, id, { type: "cancel" });
  else {
    const atMs = Date.now();
    const startedAtMs = details.begun ? ((await timesOf(client, id)).startedAtMs ?? atMs) : undefined;
    // Before: what is read of its end follows from it, since what the engine lists of it may come late, or never.
    await putNote(client, id, "cancel", { type: "cancel", atMs, ...(startedAtMs !== undefined && { startedAtMs }) });
    await client.runs.cancel({ ids: [id] });
  }
  return "requested";
}
