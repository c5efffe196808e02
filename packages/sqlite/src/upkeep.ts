import type { Database } from "./database.ts";
import { DamagedRowError } from "./errors.ts";
import type { Lookout, WorkerRow } from "./lookout.ts";
import { ACTIVE, DELAYED, READY, SETTLED, TASK_LANE } from "./schema.ts";
import { cancelled, fire, removeRun, settleDamaged, settleRun, SETTLEMENT_COLUMNS, type Settlement, type Timer } from "./settling.ts";
import { LAST_MS } from "./stored.ts";

/*
 * The upkeep that workers do for all runs of the file: due runs, lost workers, old records and unreadable rows. Each function is
 * called inside a transaction of the writer. A row that another program wrote must not block the others, so the queries skip
 * values of another type or beyond the dates, and `settleUnreadable` finds those.
 */

const DUE = `SELECT min(due) AS due FROM (
  SELECT min(run_at) AS due FROM runs WHERE state = ${DELAYED} AND run_at <= ${LAST_MS}
  UNION ALL SELECT min(due_at) FROM timers WHERE due_at <= ${LAST_MS})`;

/** When the next delayed run or timer is due. */
export function nextDue(database: Database): number | undefined {
  return database.get<{ due: number | null }>(DUE)?.due ?? undefined;
}

/** Makes due runs ready, and fires due timers. */
export function promoteDue(database: Database): void {
  const now = Date.now();
  database.run(
    `UPDATE runs SET state = ${READY}, status = CASE status WHEN 'scheduled' THEN 'pending' ELSE status END WHERE state = ${DELAYED} AND run_at <= ?`,
    now,
  );
  try {
    for (const timer of database.all<Timer>("SELECT run, n, due_at FROM timers WHERE due_at <= ? ORDER BY due_at, n", now))
      fire(database, timer, now);
  } catch (error) {
    if (!(error instanceof DamagedRowError)) throw error;
    settleUnreadable(database);
  }
}

/** Makes the runs of lost workers ready for others; the lost start stays charged. Returns how many. */
export function recoverLost(database: Database, lookout: Lookout): number {
  let recovered = 0;
  // As text, a count of any type and size can be compared; an invalid lease counts as ended.
  const workers = database.all<WorkerRow>(
    "SELECT id, CAST(renewals AS TEXT) AS renewals, CASE WHEN typeof(lease_ms) = 'integer' AND lease_ms BETWEEN 0 AND 4294967295 THEN lease_ms ELSE 0 END AS lease_ms FROM workers",
  );
  for (const id of lookout.lost(workers)) {
    database.run("DELETE FROM workers WHERE id = ?", id);
    for (const { seq } of database.all<{ seq: number }>(`SELECT seq FROM runs WHERE open = ${ACTIVE} AND owner = ?`, id)) {
      recovered++;
      recover(database, seq);
    }
  }
  return recovered;
}

function recover(database: Database, seq: number): void {
  try {
    const run = database.get<Settlement & { name: string; cancel_requested: number }>(
      `SELECT ${SETTLEMENT_COLUMNS}, name, cancel_requested FROM runs WHERE seq = ?`,
      seq,
    );
    if (run?.lane === TASK_LANE && run.cancel_requested === 1) settleRun(database, run, cancelled(run.name));
    else if (run?.lane === TASK_LANE)
      database.run(`UPDATE runs SET state = ${READY}, status = 'retrying', owner = NULL, error = NULL WHERE seq = ?`, seq);
    else database.run(`UPDATE runs SET state = ${READY}, owner = NULL, lost_ticks = lost_ticks + 1 WHERE seq = ?`, seq);
  } catch (error) {
    if (!(error instanceof DamagedRowError)) throw error;
    settleDamaged(database, "seq", seq, error);
  }
}

const PRUNE_BATCH = 500;

/** Deletes settled runs past the retention. Returns true when there may be more. */
export function prune(database: Database, retentionMs: number): boolean {
  const now = Date.now();
  const before = now - retentionMs;
  const oldest = database.all<{ seq: number; run: number; finished_at: unknown }>(
    `SELECT seq, run, CASE WHEN finished_at <= ${LAST_MS} THEN finished_at END AS finished_at FROM settlements WHERE run BETWEEN 1 AND ${LAST_MS} ORDER BY seq LIMIT ? + 0`,
    PRUNE_BATCH,
  );
  let pruned = 0;
  for (const { seq, run, finished_at: finishedAt } of oldest) {
    if (typeof finishedAt !== "number") database.run("UPDATE settlements SET finished_at = ? WHERE seq = ?", now, seq);
    else if (finishedAt < before) {
      pruned++;
      // The run's own row decides: the seq may have been reused, for a run with the same idempotency key.
      const old = database.get(`SELECT 1 FROM runs WHERE seq = ? AND state = ${SETTLED} AND finished_at < ?`, run, before);
      if (old) removeRun(database, run);
      database.run("DELETE FROM settlements WHERE seq = ?", seq);
    }
  }
  return pruned === PRUNE_BATCH;
}

const BAD_TIMER = `typeof(n) <> 'integer' OR n NOT BETWEEN 0 AND ${LAST_MS}`;

/** Settles the runs that wait for a time that will never come. Such a row is at an end of its index, so this costs almost nothing. */
export function settleTimeless(database: Database): void {
  for (const condition of ["run_at IS NULL", `run_at > ${LAST_MS}`]) {
    for (const { seq } of database.all<{ seq: number }>(`SELECT seq FROM runs WHERE state = ${DELAYED} AND ${condition}`))
      settleDamaged(database, "seq", seq, new DamagedRowError("It waits for a time that is none."));
  }
  settleTimers(database, `due_at > ${LAST_MS}`);
}

/** Repairs or settles the rows that make a query for many runs fail. Looks at every waiting row. */
export function settleUnreadable(database: Database): void {
  // A new run gets the highest number plus one, so numbers beyond the readable ones must not spread.
  const highest = `SELECT max(seq) FROM runs WHERE seq > ${LAST_MS}`;
  const next = `SELECT COALESCE(max(seq), 0) + 1 FROM runs WHERE seq < ${LAST_MS}`;
  while (database.run(`UPDATE runs SET seq = (${next}) WHERE seq = (${highest})`) > 0) continue;
  const bad = `typeof(priority) <> 'integer' OR priority NOT BETWEEN 0 AND 4`;
  for (const { seq } of database.all<{ seq: number }>(`SELECT seq FROM runs WHERE open = ${READY} AND (${bad})`))
    settleDamaged(database, "seq", seq, new DamagedRowError("Its priority is none."));
  settleTimers(database, BAD_TIMER);
}

function settleTimers(database: Database, condition: string): void {
  for (const { id } of database.all<{ id: string }>(`SELECT id FROM runs WHERE seq IN (SELECT run FROM timers WHERE ${condition})`))
    settleDamaged(database, "id", id, new DamagedRowError("One of its timers is none."));
  database.run(`DELETE FROM timers WHERE ${condition}`);
}
