import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { V1LogLine } from "@hatchet-dev/typescript-sdk/clients/rest/generated/data-contracts.js";
import { isObject, META, type Note, type ReadNote } from "./wire.ts";

/** The longest line that Hatchet accepts. */
const MAX_LINE = 900;
const PAGE = 1_000;

/** The notes that senders of signals read: their own log level excludes all other notes from the answer. */
const MARKS: ReadonlySet<Note["type"]> = new Set(["began", "ending", "goes-on"]);
const WARNINGS: ReadonlySet<Note["type"]> = new Set(["failed", "parked", "unanswered"]);

interface LogService {
  putLog(request: object): Promise<unknown>;
}

/** Writes a note: a log line of a run, which people see in the dashboard, with our data. The note is stored when this resolves. */
export async function putNote(client: HatchetClient, runId: string, line: string, note: Note): Promise<void> {
  const service = (client.events as unknown as { client: LogService }).client;
  await service.putLog({
    taskRunExternalId: runId,
    createdAt: new Date(),
    message: printable(line) || note.type,
    level: MARKS.has(note.type) ? "DEBUG" : WARNINGS.has(note.type) ? "WARN" : "INFO",
    // JSON text inside JSON: `jsonb` would sort the keys, and refuse characters that it cannot hold.
    metadata: JSON.stringify({ [META]: JSON.stringify(note) }),
  });
}

/** Replaces characters that the server's store cannot hold: a line may quote the application's texts, and would be refused as a whole. */
export function printable(line: string): string {
  return line
    .slice(0, MAX_LINE)
    .replaceAll("\u0000", "\ufffd")
    .replaceAll(/\p{Cs}/gu, "\ufffd");
}

export interface NotesQuery {
  /** The earliest time, by the server's clock. */
  readonly sinceMs?: number;
  /** Whether to read only the starts, ends and continuations of workflows. */
  readonly marksOnly?: boolean;
}

/** Reads the notes of a run, oldest first: all that were written before the call. */
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

/** Parses a note. Log lines of others, and unreadable ones, give none. */
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
