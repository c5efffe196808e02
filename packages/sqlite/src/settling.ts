import { cancelledRecord, corruptRecord, refusedRecord, type JournalEntry, type StepOutcome } from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import { causeOf, DamagedRowError, isRefusal } from "./errors.ts";
import { ACTIVE, DELAYED, PARKED, READY, SETTLED, TASK_LANE, WORKFLOW_LANE } from "./schema.ts";
import { LAST_MS, storedMs } from "./stored.ts";

/*
 * How runs end, and how that changes their parent workflow and children. Each function is called inside a transaction of the writer.
 */

export interface Settlement {
  readonly seq: number;
  readonly id: string;
  readonly lane: number;
  readonly parent: string | null;
  readonly parent_n: number | null;
}

/** The columns of `Settlement`. */
export const SETTLEMENT_COLUMNS = "seq, id, lane, parent, parent_n";

/** Settles a run: writes its record, tells its parent workflow, and cancels its children. */
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

/** Deletes a run that is past its retention. */
export function removeRun(database: Database, seq: number): void {
  database.run("DELETE FROM runs WHERE seq = ?", seq);
  // A run submitted by name only may have got signals, and turned out to be a task.
  forget(database, seq);
}

/** Deletes the rows that only an unsettled workflow needs. */
function forget(database: Database, seq: number): void {
  for (const table of ["journal", "timers", "signal_ids"]) database.run(`DELETE FROM ${table} WHERE run = ?`, seq);
}

function cancelChildren(database: Database, id: string): void {
  // The id of a child is the id of its parent, a dot, and a number; a slash comes right after the dot.
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

/** Settles a waiting run at once. A running task is aborted by its worker, and a workflow gets an entry in its journal. */
export function cancelRun(database: Database, id: string): "requested" | "settled" | "unknown" {
  return withRun(database, id, "requested", () => {
    const run = database.get<CancelRow>(
      `SELECT ${SETTLEMENT_COLUMNS}, name, state, started_at, cancel_requested FROM runs WHERE id = ?`,
      id,
    );
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
      // A workflow that waits for fitting code gets its cancellation now, too.
      database.run(`UPDATE runs SET state = ${READY} WHERE seq = ? AND state = ${DELAYED}`, run.seq);
    }
    return "requested";
  });
}

/** The outcome of a run that was cancelled before or between its attempts. */
export function cancelled(name: string): StepOutcome {
  return { status: "cancelled", error: cancelledRecord(name) };
}

// ---- journals and timers ----

/**
 * Appends an entry to a workflow's journal and wakes the run. A settled run gets nothing.
 * Timers that are due come before the entry, whether or not a worker was up. A workflow whose own rows are damaged is settled
 * instead, so that the transaction of the caller does not fail.
 */
export function appendEntry(database: Database, id: string, entry: JournalEntry & { readonly atMs: number }): void {
  withRun(database, id, undefined, () => {
    const due = database.all<Timer>(
      "SELECT run, n, due_at FROM timers WHERE run = (SELECT seq FROM runs WHERE id = ?) AND due_at <= ? ORDER BY due_at, n",
      id,
      entry.atMs,
    );
    for (const timer of due) fire(database, timer, entry.atMs);
    append(database, id, entry);
  });
}

function append(database: Database, id: string, entry: JournalEntry): void {
  const row = database.get<{ seq: number; entries: number }>(
    `UPDATE runs SET entries = entries + 1, state = CASE state WHEN ${PARKED} THEN ${READY} ELSE state END WHERE id = ? AND state <> ${SETTLED} RETURNING seq, entries`,
    id,
  );
  if (row) insertEntry(database, row.seq, row.entries - 1, entry);
}

/** @throws DamagedRowError when another program has written an entry with this number */
export function insertEntry(database: Database, run: number, position: number, entry: JournalEntry): void {
  const json = JSON.stringify(entry);
  if (database.run("INSERT OR IGNORE INTO journal (run, position, entry) VALUES (?, ?, ?)", run, position, json) === 0)
    throw new DamagedRowError("Its journal holds more entries than were counted.");
}

export interface Timer {
  readonly run: number;
  readonly n: number;
  readonly due_at: number;
}

/** Fires a timer: a sleep is over, or the wait for a signal has timed out. */
export function fire(database: Database, { run, n, due_at: dueMs }: Timer, now: number): void {
  database.run("DELETE FROM timers WHERE run = ? AND n = ?", run, n);
  const found = database.get<{ id: string }>("SELECT id FROM runs WHERE seq = ?", run);
  if (found) withRun(database, found.id, undefined, () => append(database, found.id, { type: "fired", n, atMs: now, dueMs }));
}

export function setTimer(database: Database, run: number, n: number, dueMs: number): void {
  database.run("INSERT INTO timers (run, n, due_at) VALUES (?, ?, ?)", run, n, storedMs(dueMs));
}

// ---- damaged rows ----

/** Acts on a run. If its rows turn out to be damaged, the run is settled as damaged and `otherwise` is returned. */
export function withRun<T>(database: Database, id: string, otherwise: T, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!isRefusal(error)) throw error;
    settleDamaged(database, "id", id, error);
    return otherwise;
  }
}

/** The columns that must hold whole numbers, each with the SQL that replaces another value. */
const NUMBERS = { attempts: "0", submitted_at: "?", started_at: "NULL", finished_at: "NULL", run_at: "NULL", parent_n: "NULL" };
const MEND = [
  ...Object.entries(NUMBERS).map(
    ([column, instead]) =>
      `${column} = CASE WHEN typeof(${column}) = 'integer' AND ${column} BETWEEN 0 AND ${LAST_MS} THEN ${column} ELSE ${instead} END`,
  ),
  ...["name", "queue"].map((column) => `${column} = CAST(${column} AS TEXT)`),
  `lane = CASE lane WHEN ${WORKFLOW_LANE} THEN lane ELSE ${TASK_LANE} END`,
  "parent = CASE typeof(parent) WHEN 'text' THEN parent END",
  "progress = NULL",
].join(", ");

/**
 * Settles a run as `failed` with CORRUPT_RUN because its rows cannot be read; it is found by its `seq` or `id`. A run that was
 * already settled shows the same error from now on.
 */
export function settleDamaged(database: Database, by: "seq" | "id", value: number | string, cause: unknown): void {
  const now = Date.now();
  database.run(`UPDATE runs SET ${MEND} WHERE ${by} = ?`, now, value);
  const run = database.get<Settlement & { name: string; state: unknown }>(
    `SELECT ${SETTLEMENT_COLUMNS}, name, state FROM runs WHERE ${by} = ?`,
    value,
  );
  if (!run) return;
  const error = corruptRecord(`Run "${run.id}" of "${run.name}"`, cause);
  if (run.state !== SETTLED) return settleRun(database, run, { status: "failed", error });
  database.run(
    "UPDATE runs SET status = 'failed', output = NULL, error = ?, finished_at = COALESCE(finished_at, ?) WHERE seq = ?",
    JSON.stringify(error),
    now,
    run.seq,
  );
}

/**
 * Settles a run of this owner whose outcome can never be stored: with CORRUPT_RUN when its rows cannot be read, else with a small
 * error in place of the outcome.
 */
export function settleRefused(database: Database, run: { seq: number; name: string }, owner: string, error: unknown): void {
  const held = `FROM runs WHERE seq = ? AND owner = ? AND state = ${ACTIVE}`;
  if (!database.get(`SELECT 1 ${held}`, run.seq, owner)) return;
  const cause = causeOf(error);
  if (cause instanceof DamagedRowError) return settleDamaged(database, "seq", run.seq, cause);
  const settlement = database.get<Settlement>(`SELECT ${SETTLEMENT_COLUMNS} ${held}`, run.seq, owner) as Settlement;
  settleRun(database, settlement, { status: "failed", error: refusedRecord(`the outcome of "${run.name}"`, cause) });
}
