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
 * What is sent to a run. A signal or a cancel is a note of the run, which is kept and read in the order of the server; the event
 * behind it only wakes the run, and holds nothing.
 */

/** How long a sender waits for a run that is ending, to learn whether its signal was seen. Shorter than core waits for the call. */
const ENDS_MS = 8_000;
const LOOKS_EVERY_MS = 100;

/** Asks a workflow run to look at what was sent to it. */
export async function wake(client: HatchetClient, runId: string): Promise<void> {
  await client.events.push(wakeKey(runId), {});
}

/**
 * Accepted when the run will see it before it ends. The function may be ending: its worker notes that first and looks for signals
 * then, and this writes first and looks for that note then, so that one of the two knows.
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

/** Cancels a task at once, and a workflow that has not begun; asks a workflow that has, which may clean up. */
export async function cancelRun(client: HatchetClient, runId: string, accepted: Accepted): Promise<"requested" | "settled" | "unknown"> {
  const details = await detailsOf(client, runId, accepted);
  if (!details) return "unknown";
  if (details.done) return "settled";
  const early = (details.meta.runAtMs ?? 0) > Date.now();
  const atMs = Date.now();
  const startedAtMs = details.begun && !early ? ((await timesOf(client, runId)).startedAtMs ?? atMs) : undefined;
  // Before all else: the worker that begins the run looks for it, and what is read of its end follows from it, since what the engine
  // lists of it may come late, or never.
  await putNote(client, runId, "cancel", { type: "cancel", id: randomUUID(), atMs, ...(startedAtMs !== undefined && { startedAtMs }) });
  const isTask = details.meta.kind === "task";
  if (!isTask && beganAs(await readNotes(client, runId, { marksOnly: true })) === "workflow") await wake(client, runId);
  else await client.runs.cancel({ ids: [runId] });
  return "requested";
}

/** What the first worker took it for. */
function beganAs(notes: readonly ReadNote[]): "task" | "workflow" | undefined {
  return notes.find((note) => note.type === "began")?.kind;
}

function isEnding(notes: readonly ReadNote[]): boolean {
  return notes.findLast(({ type }) => type === "ending" || type === "goes-on")?.type === "ending";
}
