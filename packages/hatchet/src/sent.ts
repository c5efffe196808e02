import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { BackendUnavailableError, type SignalRequest } from "@task-backend/core/adapter";
import type { Accepted } from "./accepted.ts";
import { outcomeOf } from "./mapping.ts";
import { putNote, readNotes } from "./notes.ts";
import { detailsOf, endOf, timesOf, type Details } from "./records.ts";
import { wakeKey, type ReadNote } from "./wire.ts";

/*
 * Signals and cancellations of a run. Each is a note of the run, which the server stores and orders. The event that follows it only
 * wakes the run, and has no content.
 */

/** How long a sender waits to learn whether a run that was ending saw its signal. Core's own limit for the call is longer. */
const ENDS_MS = 8_000;
const LOOKS_EVERY_MS = 100;

/** Makes a workflow run look for new notes. */
export async function wake(client: HatchetClient, runId: string): Promise<void> {
  await client.events.push(wakeKey(runId), {});
}

/**
 * Sends a signal; "accepted" means that the run will see it before it ends. The function may be ending: its worker notes the end and
 * then looks for signals, while the sender writes the signal and then looks for that note, so that one of them sees the other.
 */
export async function sendSignal(
  client: HatchetClient,
  runId: string,
  { name, payload, dedupeId }: SignalRequest,
  accepted: Accepted,
): Promise<"accepted" | "settled" | "unknown" | "not-a-workflow"> {
  const details = await detailsOf(client, runId, accepted);
  if (!details) return "unknown";
  if (details.done) return "settled";
  const kind = details.meta.kind ?? beganAs(await readNotes(client, runId, { marksOnly: true }));
  if (kind === "task") return "not-a-workflow";
  const id = randomUUID();
  await putNote(client, runId, `signal: ${name}`, { type: "signal", id, name, payload, ...(dedupeId !== undefined && { dedupeId }) });
  const [marks] = await Promise.all([readNotes(client, runId, { marksOnly: true }), wake(client, runId)]);
  return isEnding(marks) ? isHeard(client, details, id, accepted) : "accepted";
}

async function isHeard(
  client: HatchetClient,
  { id: runId, meta }: Details,
  id: string,
  accepted: Accepted,
): Promise<"accepted" | "settled"> {
  const lateMs = Date.now() + ENDS_MS;
  while (Date.now() < lateMs) {
    const details = await detailsOf(client, runId, accepted);
    if (!details) return "settled";
    if (details.done) return outcomeOf(meta.name, endOf(details)).settled?.heard?.includes(id) ? "accepted" : "settled";
    if (!isEnding(await readNotes(client, runId, { marksOnly: true }))) return "accepted";
    await pause(LOOKS_EVERY_MS);
  }
  throw new BackendUnavailableError(
    `Run ${runId} was ending as the signal came, and its worker has not said since whether it saw it. Send it again with a dedupeId: then it counts once.`,
  );
}

/** Cancels a task, or a workflow that has not started, at once. A workflow that has started is asked, because it may clean up. */
export async function cancelRun(client: HatchetClient, runId: string, accepted: Accepted): Promise<"requested" | "settled" | "unknown"> {
  const details = await detailsOf(client, runId, accepted);
  if (!details) return "unknown";
  if (details.done) return "settled";
  const early = (details.meta.runAtMs ?? 0) > Date.now();
  const atMs = Date.now();
  const startedAtMs = details.begun && !early ? ((await timesOf(client, runId)).startedAtMs ?? atMs) : undefined;
  // The note comes first: the worker that starts the run looks for it, and the times of the run's end are taken from it, because the
  // engine may list them late, or never.
  await putNote(client, runId, "cancel", { type: "cancel", id: randomUUID(), atMs, ...(startedAtMs !== undefined && { startedAtMs }) });
  const isTask = details.meta.kind === "task";
  if (!isTask && beganAs(await readNotes(client, runId, { marksOnly: true })) === "workflow") await wake(client, runId);
  else await client.runs.cancel({ ids: [runId] });
  return "requested";
}

/** The kind that the first worker noted. */
function beganAs(notes: readonly ReadNote[]): "task" | "workflow" | undefined {
  return notes.find((note) => note.type === "began")?.kind;
}

function isEnding(notes: readonly ReadNote[]): boolean {
  return notes.findLast(({ type }) => type === "ending" || type === "goes-on")?.type === "ending";
}
