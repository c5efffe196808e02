import { randomUUID } from "node:crypto";
import {
  cancelledRecord,
  corruptRecord,
  definitionKey,
  PRIORITIES,
  type ErrorRecord,
  type Headers,
  type Json,
  type JournalEntry,
  type RunRecord,
  type RunRequest,
  type RunStatus,
  type SignalRequest,
  type StepOutcome,
  type SubmitOutcome,
} from "@task-backend/core/adapter";
import type { Sql } from "./database.ts";

/*
 * The life of a run. Each function is called inside a transaction, so that others see all of its changes or none.
 */

export interface Row {
  readonly seq: string;
  readonly id: string;
  readonly parent: string | null;
  readonly parent_n: number | null;
  readonly kind: "task" | "workflow";
  readonly name: string;
  readonly version: string | null;
  /** Whether the run was submitted with its definition. If it was submitted by name only, a worker decides its kind. */
  readonly known: boolean;
  readonly queue: string;
  readonly priority: number;
  readonly headers: string;
  readonly input: string;
  readonly state: "ready" | "delayed" | "active" | "parked" | "settled";
  readonly status: RunStatus;
  readonly run_at: number | null;
  readonly attempts: number;
  readonly owner: string | null;
  readonly cancel_requested: boolean;
  readonly submitted_at: number;
  readonly started_at: number | null;
  readonly finished_at: number | null;
  readonly progress: string | null;
  readonly output: string | null;
  readonly error: string | null;
  readonly entries: number;
  readonly seen: number;
  readonly commands: number;
  readonly retries: number;
  readonly lost_ticks: number;
}

/** The run that started this one, and the number of the command. */
interface Parent {
  readonly id: string;
  readonly n: number;
}

/** Inserts runs in one statement. A run with an idempotency key may turn out to exist already. */
export async function insertRuns(
  sql: Sql,
  requests: readonly RunRequest[],
  retentionMs: number,
  parent?: Parent,
): Promise<SubmitOutcome[]> {
  const rows = requests.map((request) => ({
    ...request,
    id: parent ? `${parent.id}.${parent.n}` : randomUUID(),
    parent: parent?.id,
    parent_n: parent?.n,
    definition: definitionKey(request),
    known: request.definition !== undefined,
    priority: PRIORITIES.indexOf(request.priority),
    // The key is stored as JSON, which can hold any string.
    idempotency_key: request.idempotencyKey === undefined ? undefined : JSON.stringify(request.idempotencyKey),
    headers: JSON.stringify(request.headers),
    input: JSON.stringify(request.input),
    run_at: request.runAtMs,
  }));
  const keyed = rows.filter((row) => row.idempotency_key !== undefined);
  for (const { name, queue, idempotency_key } of keyed) {
    await sql("DELETE FROM runs WHERE name = $1 AND queue = $2 AND idempotency_key = $3 AND finished_at <= now_ms() - $4::float8", [
      name,
      queue,
      idempotency_key,
      retentionMs,
    ]);
  }
  const inserted = await sql<{ id: string }>(
    `INSERT INTO runs (id, parent, parent_n, kind, name, version, definition, known, queue, priority, idempotency_key, headers, input, run_at, state, status, submitted_at)
     SELECT id, parent, parent_n, kind, name, version, definition, known, queue, priority, idempotency_key, headers, input, run_at,
       CASE WHEN run_at > now_ms() THEN 'delayed' ELSE 'ready' END, CASE WHEN run_at > now_ms() THEN 'scheduled' ELSE 'pending' END, now_ms()
     FROM json_populate_recordset(NULL::runs, $1) WITH ORDINALITY ORDER BY ordinality
     ON CONFLICT (name, queue, idempotency_key) DO NOTHING RETURNING id`,
    [JSON.stringify(rows)],
  );
  const fresh = new Set(inserted.map(({ id }) => id));
  return Promise.all(
    rows.map(async ({ id, name, queue, idempotency_key }) => {
      if (fresh.has(id)) return { id, deduplicated: false };
      const [other] = await sql<{ id: string }>("SELECT id FROM runs WHERE name = $1 AND queue = $2 AND idempotency_key = $3", [
        name,
        queue,
        idempotency_key,
      ]);
      return { id: other?.id ?? id, deduplicated: true };
    }),
  );
}

/** Locks a run and its parent, always the parent first. */
async function lock(sql: Sql, id: string): Promise<Row | undefined> {
  const rows = await sql<Row>("SELECT * FROM runs WHERE id IN ($1, (SELECT parent FROM runs WHERE id = $1)) ORDER BY id FOR UPDATE", [id]);
  return rows.find((row) => row.id === id);
}

/** Locks a run that its worker still holds. */
export async function lockOwned(sql: Sql, id: string, owner: string): Promise<Row | undefined> {
  const run = await lock(sql, id);
  return run?.owner === owner && run.state === "active" ? run : undefined;
}

interface Timer {
  readonly run: string;
  readonly n: number;
  readonly due_at: number;
}

/** Adds an entry to a workflow's journal, after the timers that are due, whether or not a worker was up. */
async function happen(sql: Sql, id: string, entry: JournalEntry & { readonly atMs: number }): Promise<void> {
  const due = await sql<Timer>("SELECT * FROM timers WHERE run = $1 AND due_at <= $2 ORDER BY due_at, n", [id, entry.atMs]);
  for (const timer of due) await fire(sql, timer, entry.atMs);
  await append(sql, id, entry);
}

async function fire(sql: Sql, { run, n, due_at: dueMs }: Timer, atMs: number): Promise<void> {
  const fired = await sql("DELETE FROM timers WHERE run = $1 AND n = $2 RETURNING n", [run, n]);
  if (fired.length > 0) await append(sql, run, { type: "fired", n, atMs, dueMs });
}

/** Makes a parked workflow ready for a tick. */
export async function wake(sql: Sql, id: string): Promise<void> {
  await sql("UPDATE runs SET state = 'ready' WHERE id = $1 AND state = 'parked'", [id]);
}

/** Appends an entry to a workflow's journal and wakes the run. A settled run gets nothing. */
async function append(sql: Sql, id: string, entry: JournalEntry): Promise<void> {
  await sql(
    `WITH run AS (
       UPDATE runs SET entries = entries + 1, state = CASE state WHEN 'parked' THEN 'ready' ELSE state END
       WHERE id = $1 AND state <> 'settled' RETURNING id, entries)
     INSERT INTO journal (run, position, entry) SELECT id, entries - 1, $2 FROM run`,
    [id, JSON.stringify(entry)],
  );
}

/** Settles a locked run: writes its record, tells its parent workflow, and cancels its children. */
export async function settle(sql: Sql, run: Row, outcome: StepOutcome, attempts: number = run.attempts): Promise<void> {
  const completed = outcome.status === "completed";
  const [done] = await sql<{ finished_at: number }>(
    `UPDATE runs SET state = 'settled', status = $2, output = $3, error = $4, attempts = $5, owner = NULL, finished_at = now_ms()
     WHERE id = $1 RETURNING finished_at`,
    [run.id, outcome.status, completed ? JSON.stringify(outcome.output) : null, completed ? null : JSON.stringify(outcome.error), attempts],
  );
  if (run.parent !== null && run.parent_n !== null)
    await happen(sql, run.parent, { type: "settled", n: run.parent_n, atMs: done?.finished_at ?? 0, outcome });
  if (run.kind === "task") return;
  for (const table of ["journal", "timers", "signal_ids"]) await sql(`DELETE FROM ${table} WHERE run = $1`, [run.id]);
  const children = await sql<{ id: string }>("SELECT id FROM runs WHERE parent = $1 AND state <> 'settled' ORDER BY id", [run.id]);
  for (const { id } of children) await cancel(sql, id);
}

/** The outcome of a run that was cancelled before or between its attempts. */
export function cancelled(name: string): StepOutcome {
  return { status: "cancelled", error: cancelledRecord(name) };
}

/** Settles a waiting run at once. A running task is aborted by its worker, and a workflow gets an entry in its journal. */
export async function cancel(sql: Sql, id: string): Promise<"requested" | "settled" | "unknown"> {
  const run = await lock(sql, id);
  if (!run) return "unknown";
  if (run.state === "settled") return "settled";
  if (run.cancel_requested) return "requested";
  if (run.kind === "workflow" ? run.started_at === null : run.state !== "active") {
    await settle(sql, run, cancelled(run.name));
    return "requested";
  }
  // A workflow that waits for fitting code gets its cancellation now, too.
  const wakes = run.kind === "workflow" && run.state === "delayed";
  await sql("UPDATE runs SET cancel_requested = true, state = CASE WHEN $2 THEN 'ready' ELSE state END WHERE id = $1", [id, wakes]);
  if (run.kind === "workflow") await happen(sql, id, { type: "cancel", atMs: await nowMs(sql) });
  return "requested";
}

export async function signal(
  sql: Sql,
  id: string,
  { name, payload, dedupeId }: SignalRequest,
): Promise<"accepted" | "settled" | "unknown" | "not-a-workflow"> {
  const run = await lock(sql, id);
  if (!run) return "unknown";
  if (run.state === "settled") return "settled";
  // A run submitted by name only has no kind until a worker claims it.
  if (run.kind === "task" && (run.known || run.started_at !== null)) return "not-a-workflow";
  if (dedupeId !== undefined) {
    const fresh = await sql("INSERT INTO signal_ids (run, dedupe_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING run", [
      id,
      JSON.stringify(dedupeId),
    ]);
    if (fresh.length === 0) return "accepted";
  }
  await happen(sql, id, { type: "signal", name, payload, atMs: await nowMs(sql) });
  return "accepted";
}

/** Makes due runs ready and fires due timers. Returns in how many milliseconds the next one is due. */
export async function promoteDue(sql: Sql): Promise<number | undefined> {
  await sql(
    `UPDATE runs SET state = 'ready', status = CASE status WHEN 'scheduled' THEN 'pending' ELSE status END
     WHERE id IN (SELECT id FROM runs WHERE state = 'delayed' AND run_at <= now_ms() FOR UPDATE SKIP LOCKED)`,
  );
  const due = await sql<Timer>("SELECT * FROM timers WHERE due_at <= now_ms() ORDER BY due_at, n");
  for (const timer of due) {
    const free = await sql("SELECT FROM runs WHERE id = $1 FOR UPDATE SKIP LOCKED", [timer.run]);
    if (free.length > 0) await fire(sql, timer, await nowMs(sql));
  }
  const [next] = await sql<{ ms: number | null }>(
    `SELECT least((SELECT min(run_at) FROM runs WHERE state = 'delayed'), (SELECT min(due_at) FROM timers)) - now_ms() AS ms`,
  );
  return next?.ms ?? undefined;
}

/** Makes the runs of lost workers ready for others. The lost start stays charged. */
export async function recover(sql: Sql): Promise<number> {
  await sql("DELETE FROM workers WHERE lease_until < now_ms()");
  const lost = await sql<{ id: string; owner: string }>(
    "SELECT id, owner FROM runs WHERE state = 'active' AND NOT EXISTS (SELECT FROM workers WHERE workers.id = owner) ORDER BY id",
  );
  for (const { id, owner } of lost) {
    const run = await lockOwned(sql, id, owner);
    if (run?.kind === "task" && run.cancel_requested) await settle(sql, run, cancelled(run.name));
    else if (run?.kind === "task")
      await sql("UPDATE runs SET state = 'ready', status = 'retrying', owner = NULL, error = NULL WHERE id = $1", [id]);
    else if (run) await sql("UPDATE runs SET state = 'ready', owner = NULL, lost_ticks = lost_ticks + 1 WHERE id = $1", [id]);
  }
  return lost.length;
}

export function toRecord(row: Row): RunRecord {
  // A due run is stored as `scheduled` until a worker promotes it.
  const due = row.status === "scheduled" && (row.run_at ?? 0) <= Date.now();
  return {
    id: row.id,
    name: row.name,
    queue: row.queue,
    status: due ? "pending" : row.status,
    attempts: row.attempts,
    submittedAtMs: row.submitted_at,
    ...(row.started_at !== null && { startedAtMs: row.started_at }),
    ...(row.finished_at !== null && { finishedAtMs: row.finished_at }),
    ...payloadsOf(row),
  };
}

/** The payloads of a record. A record whose payloads cannot be read is shown as corrupt. */
function payloadsOf(row: Row): Pick<RunRecord, "progress" | "output" | "error"> & { status?: RunStatus } {
  try {
    return {
      ...(row.progress !== null && { progress: JSON.parse(row.progress) as Json }),
      ...(row.output !== null && { output: JSON.parse(row.output) as Json }),
      ...(row.error !== null && { error: JSON.parse(row.error) as ErrorRecord }),
    };
  } catch (cause) {
    return { ...(row.finished_at !== null && { status: "failed" }), error: corruptRecord(`The record of run "${row.id}"`, cause) };
  }
}

interface Envelope {
  readonly input: Json;
  readonly headers: Headers;
  readonly previousError?: ErrorRecord;
}

/** The payloads that a worker needs for a claimed run, or the error if they cannot be read. */
export function envelopeOf({ input, headers, error }: Row): Envelope | { readonly corrupt: unknown } {
  try {
    return {
      input: JSON.parse(input) as Json,
      headers: JSON.parse(headers) as Headers,
      ...(error !== null && { previousError: JSON.parse(error) as ErrorRecord }),
    };
  } catch (corrupt) {
    return { corrupt };
  }
}

async function nowMs(sql: Sql): Promise<number> {
  const [row] = await sql<{ now: number }>("SELECT now_ms() AS now");
  return row?.now ?? Date.now();
}
