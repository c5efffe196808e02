import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { V1LogLine } from "@hatchet-dev/typescript-sdk/clients/rest/generated/data-contracts.js";
import { isObject, META, type Note, type ReadNote } from "./wire.ts";

/** Hatchet takes no longer lines. */
const MAX_LINE = 900;
const PAGE = 1_000;

/** Notes that senders ask for alone: a level of their own keeps what else was noted out of the answer. */
const MARKS: ReadonlySet<Note["type"]> = new Set(["began", "ending", "goes-on"]);
const WARNINGS: ReadonlySet<Note["type"]> = new Set(["failed", "parked", "unanswered"]);

interface LogService {
  putLog(request: object): Promise<unknown>;
}

/** Writes a log line of a run, which people see in the dashboard, with what we read of it. It is kept when this resolves. */
export async function putNote(client: HatchetClient, runId: string, line: string, note: Note): Promise<void> {
  const service = (client.events as unknown as { client: LogService }).client;
  await service.putLog({
    taskRunExternalId: runId,
    createdAt: new Date(),
    message: printable(line) || note.type,
    level: MARKS.has(note.type) ? "DEBUG" : WARNINGS.has(note.type) ? "WARN" : "INFO",
    // As text in text: `jsonb` would sort its keys, and refuse what it cannot hold.
    metadata: JSON.stringify({ [META]: JSON.stringify(note) }),
  });
}

/** A line may quote the application's texts: what the server's store cannot hold would cost the whole entry. */
export function printable(line: string): string {
  return line
    .slice(0, MAX_LINE)
    .replaceAll("\u0000", "\ufffd")
    .replaceAll(/\p{Cs}/gu, "\ufffd");
}

export interface NotesQuery {
  /** By the server's clock. */
  readonly sinceMs?: number;
  /** Only that workflows began, end and go on. */
  readonly marksOnly?: boolean;
}

/** The notes of a run, the oldest first: all that were written before this was called. */
export async function readNotes(client: HatchetClient, runId: string, { sinceMs, marksOnly }: NotesQuery = {}): Promise<ReadNote[]> {
  const notes: ReadNote[] = [];
  let since = sinceMs === undefined ? undefined : new Date(Math.max(sinceMs, 0)).toISOString();
  for (;;) {
    const { data } = await client.api.v1TenantLogLineList(client.tenantId, {
      taskExternalIds: [runId],
      limit: PAGE,
      ...(since !== undefined && { since }),
      ...(marksOnly && { levels: ["DEBUG" as never] }),
    });
    const rows = data.rows ?? [];
    notes.push(...rows.flatMap(noteOf));
    const last = rows.at(-1);
    if (rows.length < PAGE || !last) return notes;
    since = last.createdAt;
  }
}

/** None where others have logged something, or what is there cannot be read. */
function noteOf({ createdAt, metadata }: V1LogLine): ReadNote[] {
  const text = (metadata as Readonly<Record<string, unknown>> | undefined)?.[META];
  if (typeof text !== "string") return [];
  try {
    const note: unknown = JSON.parse(text);
    return isObject(note) && typeof note["type"] === "string" ? [{ ...(note as unknown as Note), seenAtMs: Date.parse(createdAt) }] : [];
  } catch {
    return [];
  }
}
