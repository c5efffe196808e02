import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { corruptRecord, refusedRecord, type ErrorRecord } from "@task-backend/core/adapter";
import { Unanswered } from "./durable-log.ts";
import { putNote, readNotes } from "./notes.ts";
import { toThrown } from "./wire.ts";

/** How often an entry may stay unanswered: the server does not answer if it cannot accept the entry, or if a connection breaks. */
const ASKS = 3;

/** Runs an invocation. If it can never go on, its run is settled, because the engine would start it again without end. */
export async function orGiveUp<T>(client: HatchetClient, runId: string, name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Unanswered) await countUnanswered(client, runId, name, error);
    throw error;
  }
}

async function countUnanswered(client: HatchetClient, runId: string, name: string, unanswered: Unanswered): Promise<void> {
  const { at, message } = unanswered;
  await putNote(client, runId, message, { type: "unanswered", at });
  const notes = await readNotes(client, runId);
  if (notes.filter((note) => note.type === "unanswered" && note.at === at).length < ASKS) return;
  throw failed(refusedRecord(`Entry ${at} of the durable log of "${name}"`, unanswered));
}

/** The error of a run whose data cannot be read. */
export function corrupt(runId: string, name: string, cause: Error): Error {
  return failed(corruptRecord(`Run "${runId}" of "${name}"`, cause));
}

function failed(error: ErrorRecord): Error {
  const atMs = Date.now();
  return toThrown({ attempts: 0, startedAtMs: atMs, finishedAtMs: atMs, status: "failed", error });
}
