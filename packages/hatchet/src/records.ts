import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { Json, RunRecord } from "@task-backend/core/adapter";
import type { Accepted } from "./accepted.ts";
import { isNotFound } from "./errors.ts";
import type { Completion } from "./durable-log.ts";
import { CANCELLED, outcomeOf } from "./mapping.ts";
import { readNotes } from "./notes.ts";
import { readMeta, type Meta, type Note, type ReadNote } from "./wire.ts";

/** A run, as Hatchet's own tables have it now. */
export interface Details {
  readonly id: string;
  readonly meta: Meta;
  readonly status: "QUEUED" | "RUNNING" | "COMPLETED" | "FAILED" | "CANCELLED";
  readonly done: boolean;
  /** Whether a worker has the run, or it was left to the engine. If false, a worker may still have had it before. */
  readonly begun: boolean;
  readonly output?: unknown;
  readonly error?: string;
}

/** How often a run is looked for by a process that did not submit it: it may not be found at once after it was accepted. */
const LOOKS_AGAIN_MS = [50, 200, 500] as const;
const LOOKS_ON_MS = 1_000;
/** How long after a cancellation a worker may report another outcome: for a run that it held, and for one that it was about to get. */
export const HEARS_MS = 2_000;
const STARTS_MS = 300;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Reads a run; undefined for unknown ids. */
export async function detailsOf(client: HatchetClient, id: string, accepted: Accepted): Promise<Details | undefined> {
  if (!UUID.test(id)) return undefined;
  for (let looks = 0; ; looks++) {
    const details = await look(client, id);
    if (details) return details;
    const ms = LOOKS_AGAIN_MS[looks] ?? (accepted.has(id) ? LOOKS_ON_MS : undefined);
    if (ms === undefined) return undefined;
    await pause(ms);
  }
}

async function look(client: HatchetClient, id: string): Promise<Details | undefined> {
  try {
    const { status, done, isEvicted, additionalMetadata, taskRuns } = await client.runs.getDetails(id);
    const [[name, task] = ["", undefined]] = Object.entries(taskRuns);
    const { meta } = readMeta(additionalMetadata, name);
    // Backends of another namespace do not see this run. A run that was started from Hatchet's side has no namespace.
    if (meta.submittedAtMs > 0 && (meta.namespace ?? "") !== (client.config.namespace ?? "")) return undefined;
    return {
      id,
      meta,
      status: status as Details["status"],
      done,
      begun: isEvicted || status !== ("QUEUED" as never),
      output: task?.output,
      ...(task?.error && { error: task.error }),
    };
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Returns the outcome that a worker reported for an ended run; undefined when it reported none. */
export type WorkersEnd = (id: string) => Promise<Completion | undefined>;

/** Reads a record; undefined for unknown ids and past the retention. */
export async function readRecord(
  client: HatchetClient,
  id: string,
  accepted: Accepted,
  retentionMs: number,
  workersEnd: WorkersEnd,
): Promise<RunRecord | undefined> {
  const details = await detailsOf(client, id, accepted);
  if (!details) return undefined;
  const record = await (details.done ? settledRecord(client, details, workersEnd) : openRecord(client, details));
  return record.finishedAtMs !== undefined && record.finishedAtMs <= Date.now() - retentionMs ? undefined : record;
}

async function settledRecord(client: HatchetClient, details: Details, workersEnd: WorkersEnd): Promise<RunRecord> {
  const { id, meta } = details;
  const { end, known }: End = details.status === "CANCELLED" ? await cancelledEnd(client, id, workersEnd) : { end: endOf(details) };
  const { outcome, settled } = outcomeOf(meta.name, end);
  const common = { id, name: meta.name, queue: meta.queue, submittedAtMs: meta.submittedAtMs };
  if (settled) {
    const { attempts, startedAtMs, finishedAtMs, progress } = settled;
    return {
      ...common,
      ...outcome,
      attempts,
      ...(attempts > 0 && { startedAtMs }),
      finishedAtMs,
      ...(progress !== undefined && { progress }),
    };
  }
  // The engine itself settled the run.
  const notes = known ?? (await readNotes(client, id));
  const cancel = outcome.status === "cancelled" && notes.find((note) => note.type === "cancel");
  const { startedAtMs, finishedAtMs }: Times = cancel ? { ...cancel, finishedAtMs: cancel.atMs } : await timesOf(client, id);
  const seen = seenIn(notes);
  const attempts = startedAtMs === undefined ? seen.failed : seen.failed + (seen.waiting ? 0 : 1);
  const began = seen.startedAtMs ?? startedAtMs;
  return {
    ...common,
    ...outcome,
    attempts,
    ...(attempts > 0 && began !== undefined && { startedAtMs: began }),
    finishedAtMs: finishedAtMs ?? Date.now(),
    ...(seen.progress !== undefined && { progress: seen.progress }),
  };
}

interface End {
  readonly end: Completion;
  /** The notes that were read for it. */
  readonly known?: readonly ReadNote[];
}

export function endOf({ status, output, error }: Details): Completion {
  return { isFailure: status !== "COMPLETED", payload: output as Json, ...(error !== undefined && { errorMessage: error }) };
}

/**
 * The outcome of a run that was cancelled as it ended: the engine keeps both ends and may report either. The worker's end counts,
 * because somebody may have been told of it already. A worker does not report one that is later than the time waited for here.
 */
async function cancelledEnd(client: HatchetClient, id: string, workersEnd: WorkersEnd): Promise<End> {
  const end: Completion = { isFailure: true, errorMessage: CANCELLED };
  for (;;) {
    const known = await readNotes(client, id);
    const cancel = known.find((note) => note.type === "cancel");
    if (!cancel || known.some(({ type }) => type === "aborted")) return { end, known };
    const graceMs = cancel.startedAtMs === undefined || seenIn(known).waiting ? STARTS_MS : HEARS_MS;
    if (Date.now() < cancel.atMs || Date.now() >= cancel.atMs + graceMs) return { end: (await workersEnd(id)) ?? end, known };
    await pause(LOOKS_AGAIN_MS[0]);
  }
}

async function openRecord(client: HatchetClient, details: Details): Promise<RunRecord> {
  const { id, meta, status, begun } = details;
  const { name, queue, submittedAtMs, runAtMs = 0 } = meta;
  const common = { id, name, queue, submittedAtMs };
  const early = runAtMs > Date.now();
  const waits = { ...common, status: early ? ("scheduled" as const) : ("pending" as const), attempts: 0 };
  const [notes, known] = await Promise.all([readNotes(client, id), begun ? timesOf(client, id) : undefined]);
  const began = notes.find((note) => note.type === "began");
  const seen = seenIn(notes);
  if ((meta.kind ?? began?.kind) === "workflow") {
    if (!began || (seen.parked && !seen.parked.error)) return waits;
    const workflow = { ...common, attempts: 1, startedAtMs: began.seenAtMs };
    return seen.parked?.error ? { ...workflow, status: "retrying", error: seen.parked.error } : { ...workflow, status: "running" };
  }
  if (early || (!begun && seen.failed === 0)) return waits;
  const times = known ?? (await timesOf(client, id));
  const startedAtMs = seen.startedAtMs ?? times.startedAtMs ?? Date.now();
  const progress = seen.progress !== undefined && { progress: seen.progress };
  if (seen.waiting || status === "QUEUED") {
    if (seen.failed === 0) return { ...waits, ...progress };
    return { ...common, status: "retrying", attempts: seen.failed, startedAtMs, ...progress, ...(seen.error && { error: seen.error }) };
  }
  return { ...common, status: "running", attempts: seen.failed + 1, startedAtMs, ...progress };
}

interface Seen {
  /** The number of charged attempts. */
  readonly failed: number;
  /** Whether the run waits for its next attempt. */
  readonly waiting: boolean;
  readonly error?: RunRecord["error"];
  readonly startedAtMs?: number;
  readonly progress?: Json;
  readonly parked?: Extract<Note, { type: "parked" }>;
}

/** The types of notes that do not concern attempts. */
const ASIDE: ReadonlySet<Note["type"]> = new Set([
  "progress",
  "left",
  "began",
  "ending",
  "goes-on",
  "signal",
  "cancel",
  "aborted",
  "unanswered",
]);

function seenIn(notes: readonly Note[]): Seen {
  const last = notes.findLast(({ type }) => !ASIDE.has(type));
  const failed = notes.findLast((note) => note.type === "failed");
  const progress = notes.findLast((note) => note.type === "progress");
  const charged = last?.type === "started" ? last.attempt - 1 : last && "attempt" in last ? last.attempt : 0;
  return {
    failed: charged,
    waiting: last?.type === "failed" || last?.type === "released",
    ...(failed && { error: failed.error, startedAtMs: failed.startedAtMs }),
    ...(progress && { progress: progress.value }),
    ...(last?.type === "parked" && { parked: last }),
  };
}

interface Times {
  readonly startedAtMs?: number;
  readonly finishedAtMs?: number;
}

/** The times in the engine's list of runs. */
export async function timesOf(client: HatchetClient, id: string): Promise<Times> {
  try {
    const { data } = await client.api.v1TaskGet(id);
    const at = (text: string | undefined): number => (text === undefined ? 0 : Date.parse(text));
    const [startedAtMs, finishedAtMs] = [at(data.startedAt), at(data.finishedAt)];
    return { ...(startedAtMs > 0 && { startedAtMs }), ...(finishedAtMs > 0 && { finishedAtMs }) };
  } catch (error) {
    // That list may lag behind.
    if (isNotFound(error)) return {};
    throw error;
  }
}
