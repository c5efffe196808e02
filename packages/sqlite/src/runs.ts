import { randomUUID } from "node:crypto";
import {
  definitionKey,
  cancelledRecord,
  type JournalEntry,
  type RunRequest,
  type SignalRequest,
  type StepOutcome,
  type SubmitOutcome,
} from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import type { Lookout, WorkerRow } from "./lookout.ts";
import { toPriority } from "./mapping.ts";
import { ACTIVE, DELAYED, PARKED, READY, SETTLED, TASK_LANE, WORKFLOW_LANE } from "./schema.ts";

/*
 * The changes that a run goes through. Each function is called inside a transaction of the writer.
 */

/** The run that started this one, and the number of the command. */
export interface Parent {
  readonly id: string;
  readonly n: number;
}

const INSERT = `INSERT INTO runs (id, lane, name, version, definition, queue, priority, state, status, run_at, idempotency_key, parent, parent_n, submitted_at, headers, input)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

/** Adds a run, or finds the one with the same idempotency key. */
export function insertRun(database: Database, request: RunRequest, retentionMs: number, parent?: Parent): SubmitOutcome {
  // As JSON text, which holds any string: SQLite would cut one at a null character.
  const key = request.idempotencyKey === undefined ? null : JSON.stringify(request.idempotencyKey);
  if (key !== null) {
    const existing = findByKey(database, request, key, retentionMs);
    if (existing !== undefined) return { id: existing, deduplicated: true };
  }
  const now = Date.now();
  const id = parent ? `${parent.id}.${parent.n}` : newId(now);
  const later = request.runAtMs !== undefined && request.runAtMs > now;
  database.run(
    INSERT,
    id,
    request.kind === "task" ? TASK_LANE : WORKFLOW_LANE,
    request.name,
    request.version ?? null,
    definitionKey(request),
    request.queue,
    toPriority(request.priority),
    later ? DELAYED : READY,
    later ? "scheduled" : "pending",
    request.runAtMs ?? null,
    key,
    parent?.id ?? null,
    parent?.n ?? null,
    now,
    JSON.stringify(request.headers),
    JSON.stringify(request.input),
  );
  return { id, deduplicated: false };
}

function newId(now: number): string {
  // Begins with the time, so that new ids go to the end of their index.
  return now.toString(36).padStart(9, "0") + randomUUID().replaceAll("-", "").slice(0, 16);
}

function findByKey(database: Database, request: RunRequest, key: string, retentionMs: number): string | undefined {
  const row = database.get<{ seq: number; id: string; finished_at: number | null }>(
    "SELECT seq, id, finished_at FROM runs WHERE name = ? AND queue = ? AND idempotency_key = ?",
    request.name,
    request.queue,
    key,
  );
  if (!row) return undefined;
  if (row.finished_at === null || row.finished_at > Date.now() - retentionMs) return row.id;
  database.run("DELETE FROM runs WHERE seq = ?", row.seq);
  return undefined;
}

/**
 * Puts an entry at the end of a workflow's journal and wakes it. Nothing for settled runs.
 * The deadlines that have passed come before it, whether or not a worker was up.
 */
function appendEntry(database: Database, id: string, entry: JournalEntry & { readonly atMs: number }): void {
  const due = database.all<Timer>(
    "SELECT run, n, due_at FROM timers WHERE run = (SELECT seq FROM runs WHERE id = ?) AND due_at <= ? ORDER BY due_at, n",
    id,
    entry.atMs,
  );
  for (const timer of due) fire(database, timer, entry.atMs);
  append(database, id, entry);
}

function append(database: Database, id: string, entry: JournalEntry): void {
  const row = database.get<{ seq: number; entries: number }>(
    `UPDATE runs SET entries = entries + 1, state = CASE state WHEN ${PARKED} THEN ${READY} ELSE state END WHERE id = ? AND state <> ${SETTLED} RETURNING seq, entries`,
    id,
  );
  if (row) database.run("INSERT INTO journal (run, position, entry) VALUES (?, ?, ?)", row.seq, row.entries - 1, JSON.stringify(entry));
}

/** Makes a workflow that waits ready for a tick. */
export function wakeRun(database: Database, id: string): void {
  database.run(`UPDATE runs SET state = ${READY} WHERE id = ? AND state = ${PARKED}`, id);
}

export interface Settlement {
  readonly seq: number;
  readonly id: string;
  readonly lane: number;
  readonly parent: string | null;
  readonly parent_n: number | null;
}

/** The columns of `Settlement`. */
export const SETTLEMENT_COLUMNS = "seq, id, lane, parent, parent_n";

/** Settles a run: its record, the workflow that waits for it, and whatever it started. */
export function settleRun(database: Database, run: Settlement, outcome: StepOutcome, attempts: number | null = null): void {
  const now = Date.now();
  const completed = outcome.status === "completed";
  database.run(
    `UPDATE runs SET state = ${SETTLED}, status = ?, output = ?, error = ?, finished_at = ?, owner = NULL, attempts = COALESCE(?, attempts) WHERE seq = ?`,
    outcome.status,
    completed ? JSON.stringify(outcome.output) : null,
    completed ? null : JSON.stringify(outcome.error),
    now,
    attempts,
    run.seq,
  );
  database.run("INSERT INTO settlements (run, finished_at) VALUES (?, ?)", run.seq, now);
  if (run.parent !== null && run.parent_n !== null) {
    appendEntry(database, run.parent, { type: "settled", n: run.parent_n, atMs: now, outcome });
  }
  if (run.lane === WORKFLOW_LANE) {
    cancelChildren(database, run.id);
    forget(database, run.seq);
  }
}

/** What only an unsettled workflow needs. */
function forget(database: Database, seq: number): void {
  for (const table of ["journal", "timers", "signal_ids"]) database.run(`DELETE FROM ${table} WHERE run = ?`, seq);
}

function cancelChildren(database: Database, id: string): void {
  // Children have the id of their parent, a dot, and a number; a slash comes right after the dot.
  const children = database.all<{ id: string }>(
    `SELECT id FROM runs WHERE id > ? AND id < ? AND parent = ? AND state <> ${SETTLED}`,
    `${id}.`,
    `${id}/`,
    id,
  );
  for (const child of children) cancelRun(database, child.id);
}

interface CancelRow extends Settlement {
  readonly name: string;
  readonly state: number;
  readonly started_at: number | null;
  readonly cancel_requested: number;
}

/** What a waiting run never gets to do; a running task is told by its worker, a workflow by its journal. */
export function cancelRun(database: Database, id: string): "requested" | "settled" | "unknown" {
  const run = database.get<CancelRow>(`SELECT ${SETTLEMENT_COLUMNS}, name, state, started_at, cancel_requested FROM runs WHERE id = ?`, id);
  if (!run) return "unknown";
  if (run.state === SETTLED) return "settled";
  if (run.cancel_requested === 1) return "requested";
  const waits = run.lane === WORKFLOW_LANE ? run.started_at === null : run.state !== ACTIVE;
  if (waits) {
    settleRun(database, run, cancelled(run.name));
    return "requested";
  }
  database.run("UPDATE runs SET cancel_requested = 1 WHERE seq = ?", run.seq);
  if (run.lane === WORKFLOW_LANE) {
    appendEntry(database, id, { type: "cancel", atMs: Date.now() });
    // One that waits for fitting code hears of it as well.
    database.run(`UPDATE runs SET state = ${READY} WHERE seq = ? AND state = ${DELAYED}`, run.seq);
  }
  return "requested";
}

/** How a run ends that was cancelled before or between its attempts. */
export function cancelled(name: string): StepOutcome {
  return { status: "cancelled", error: cancelledRecord(name) };
}

export function signalRun(database: Database, id: string, request: SignalRequest): "accepted" | "settled" | "unknown" | "not-a-workflow" {
  const run = database.get<{ seq: number; state: number; lane: number; started_at: number | null }>(
    "SELECT seq, state, lane, started_at FROM runs WHERE id = ?",
    id,
  );
  if (!run) return "unknown";
  if (run.state === SETTLED) return "settled";
  // Known by name only, a run has no kind before a worker has taken it.
  if (run.lane === TASK_LANE && run.started_at !== null) return "not-a-workflow";
  if (request.dedupeId !== undefined) {
    const fresh = database.run(
      "INSERT OR IGNORE INTO signal_ids (run, dedupe_id) VALUES (?, ?)",
      run.seq,
      JSON.stringify(request.dedupeId),
    );
    if (fresh === 0) return "accepted";
  }
  appendEntry(database, id, { type: "signal", name: request.name, payload: request.payload, atMs: Date.now() });
  return "accepted";
}

/** Moves what is due to where workers find it. */
export function promoteDue(database: Database): void {
  const now = Date.now();
  database.run(
    `UPDATE runs SET state = ${READY}, status = CASE status WHEN 'scheduled' THEN 'pending' ELSE status END WHERE state = ${DELAYED} AND run_at <= ?`,
    now,
  );
  for (const timer of database.all<Timer>("SELECT run, n, due_at FROM timers WHERE due_at <= ? ORDER BY due_at, n", now))
    fire(database, timer, now);
}

interface Timer {
  readonly run: number;
  readonly n: number;
  readonly due_at: number;
}

function fire(database: Database, { run, n, due_at: dueMs }: Timer, now: number): void {
  database.run("DELETE FROM timers WHERE run = ? AND n = ?", run, n);
  const found = database.get<{ id: string }>("SELECT id FROM runs WHERE seq = ?", run);
  if (found) append(database, found.id, { type: "fired", n, atMs: now, dueMs });
}

/** When the next delayed run or timer is due. */
export function nextDue(database: Database): number | undefined {
  return database.get<{ due: number | null }>(NEXT_DUE)?.due ?? undefined;
}

const NEXT_DUE = `SELECT min(due) AS due FROM (SELECT min(run_at) AS due FROM runs WHERE state = ${DELAYED} UNION ALL SELECT min(due_at) FROM timers)`;

/** Gives the runs of lost workers to others; the lost start stays charged. Returns how many. */
export function recoverLost(database: Database, lookout: Lookout): number {
  let recovered = 0;
  for (const id of lookout.lost(database.all<WorkerRow>("SELECT id, renewals, lease_ms FROM workers"))) {
    database.run("DELETE FROM workers WHERE id = ?", id);
    for (const run of database.all<CancelRow>(
      `SELECT ${SETTLEMENT_COLUMNS}, name, cancel_requested FROM runs WHERE open = ${ACTIVE} AND owner = ?`,
      id,
    )) {
      recovered++;
      if (run.lane === TASK_LANE && run.cancel_requested === 1) settleRun(database, run, cancelled(run.name));
      else if (run.lane === TASK_LANE)
        database.run(`UPDATE runs SET state = ${READY}, status = 'retrying', owner = NULL, error = NULL WHERE seq = ?`, run.seq);
      else database.run(`UPDATE runs SET state = ${READY}, owner = NULL, lost_ticks = lost_ticks + 1 WHERE seq = ?`, run.seq);
    }
  }
  return recovered;
}

const PRUNE_BATCH = 500;

/** Forgets settled runs past the retention. True when there may be more. */
export function prune(database: Database, retentionMs: number): boolean {
  const oldest = database.all<{ seq: number; run: number; finished_at: number }>(
    "SELECT seq, run, finished_at FROM settlements ORDER BY seq LIMIT ?",
    PRUNE_BATCH,
  );
  const before = Date.now() - retentionMs;
  const past = oldest.filter((settlement) => settlement.finished_at < before);
  for (const { seq, run } of past) {
    database.run(`DELETE FROM runs WHERE seq = ? AND state = ${SETTLED}`, run);
    // A run known by name only was sent signals, and was a task after all.
    forget(database, run);
    database.run("DELETE FROM settlements WHERE seq = ?", seq);
  }
  return past.length === PRUNE_BATCH;
}
