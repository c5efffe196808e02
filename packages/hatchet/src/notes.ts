import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { V1LogLine } from "@hatchet-dev/typescript-sdk/clients/rest/generated/data-contracts.js";
import { isNotFound } from "./client.ts";
import { META, type Note } from "./wire.ts";

/** Hatchet takes no longer lines. */
const MAX_LINE = 900;

interface LogService {
  putLog(request: object): Promise<unknown>;
}

/** Writes a log line of a run, which people see in the dashboard, with what we read of it. */
export async function putNote(client: HatchetClient, runId: string, line: string, note: Note): Promise<void> {
  const service = (client.events as unknown as { client: LogService }).client;
  await service.putLog({
    taskRunExternalId: runId,
    createdAt: new Date(),
    message: line.slice(0, MAX_LINE),
    level: note.type === "failed" || note.type === "parked" ? "WARN" : "INFO",
    metadata: JSON.stringify({ [META]: JSON.stringify(note) }),
  });
}

/** The notes of a run, the oldest first. */
export async function readNotes(client: HatchetClient, runId: string): Promise<Note[]> {
  const { data } = await client.api.v1LogLineList(runId, { limit: 1_000 }).catch((error: unknown) => {
    // The list of runs that it looks the run up in may lag behind.
    if (isNotFound(error)) return { data: { rows: [] as V1LogLine[] } };
    throw error;
  });
  const rows = [...(data.rows ?? [])].sort((a, b) => Date.parse(a.createdAt) - Date.parse(b.createdAt));
  return rows.flatMap(({ metadata }) => {
    const text = (metadata as Readonly<Record<string, unknown>> | undefined)?.[META];
    return typeof text === "string" ? [JSON.parse(text) as Note] : [];
  });
}
