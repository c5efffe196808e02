import type { Answer, Command, DrivenRun, JournalEntry, JournalSlice, JournalStore } from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import { cancelRun, insertRun, settleRun, SETTLEMENT_COLUMNS, type Settlement } from "./runs.ts";
import { ACTIVE, DELAYED, PARKED } from "./schema.ts";

interface RunRow extends Settlement {
  readonly entries: number;
  readonly seen: number;
  readonly commands: number;
  readonly retries: number;
}

/** A run for a tick, with the worker that owns it. */
export interface OwnedRun extends DrivenRun {
  readonly owner: string;
}

/**
 * The journals of workflow runs. Steps, timers and signals append to them as they happen, in `runs.ts`;
 * an answer is carried out in one transaction, fenced by the owner of the run.
 */
export class SqliteJournal implements JournalStore<OwnedRun> {
  readonly #database: Database;
  readonly #retentionMs: number;
  readonly #onWrite: () => void;

  /** @param onWrite called when a transaction is about to be made, for the worker to add its claims */
  constructor(database: Database, retentionMs: number, onWrite: () => void) {
    this.#database = database;
    this.#retentionMs = retentionMs;
    this.#onWrite = onWrite;
  }

  async load({ id, owner }: OwnedRun, from: number): Promise<JournalSlice | "lost"> {
    return this.#database.read(() => {
      const run = this.#find(id, owner);
      if (!run) return "lost";
      const rows = this.#database.all<{ entry: string }>(
        "SELECT entry FROM journal WHERE run = ? AND position >= ? ORDER BY position",
        run.seq,
        from,
      );
      return {
        entries: rows.map((row) => JSON.parse(row.entry) as JournalEntry),
        seen: run.seen,
        commandsSeen: run.commands,
        retries: run.retries,
      };
    });
  }

  commit(run: OwnedRun, seen: number, result: Answer, reordered?: readonly JournalEntry[]): Promise<"done" | "more" | "lost"> {
    const committed = this.#database.writer.write(() => this.#apply(run, seen, result, reordered));
    this.#onWrite();
    return committed;
  }

  #apply({ id, owner }: OwnedRun, seen: number, result: Answer, reordered: readonly JournalEntry[] = []): "done" | "more" | "lost" {
    const run = this.#find(id, owner);
    if (!run) return "lost";
    if (endsOverSignals(result) && this.#signalSince(run, seen)) return "more";
    for (const [index, entry] of reordered.entries()) {
      this.#database.run("UPDATE journal SET entry = ? WHERE run = ? AND position = ?", JSON.stringify(entry), run.seq, run.seen + index);
    }
    switch (result.do) {
      case "wait":
        return this.#wait(run, seen, result.commands);
      case "complete":
        settleRun(this.#database, run, { status: "completed", output: result.output });
        return "done";
      case "settle":
        settleRun(this.#database, run, result);
        return "done";
      case "retry":
        this.#database.run(
          `UPDATE runs SET state = ${DELAYED}, status = 'retrying', run_at = ?, owner = NULL, error = ?, retries = retries + 1, lost_ticks = 0 WHERE seq = ?`,
          Date.now() + result.delayMs,
          JSON.stringify(result.error),
          run.seq,
        );
        return "done";
      case "release":
        this.#database.run(
          `UPDATE runs SET state = ${DELAYED}, run_at = ?, owner = NULL WHERE seq = ?`,
          Date.now() + result.delayMs,
          run.seq,
        );
        return "done";
    }
  }

  #signalSince(run: RunRow, seen: number): boolean {
    if (run.entries <= seen) return false;
    const rows = this.#database.all<{ entry: string }>("SELECT entry FROM journal WHERE run = ? AND position >= ?", run.seq, seen);
    return rows.some(({ entry }) => (JSON.parse(entry) as JournalEntry).type === "signal");
  }

  #find(id: string, owner: string): RunRow | undefined {
    return this.#database.get<RunRow>(
      `SELECT ${SETTLEMENT_COLUMNS}, entries, seen, commands, retries FROM runs WHERE id = ? AND owner = ? AND state = ${ACTIVE}`,
      id,
      owner,
    );
  }

  /** Records the commands and starts each, once per number; then parks the run unless more has happened since. */
  #wait(run: RunRow, seen: number, commands: readonly Command[]): "done" | "more" {
    const fresh = commands.filter((command) => command.n >= run.commands);
    for (const [index, command] of fresh.entries()) {
      const entry: JournalEntry = { type: "command", n: command.n, key: command.key };
      this.#database.run(
        "INSERT INTO journal (run, position, entry) VALUES (?, ?, ?)",
        run.seq,
        run.entries + index,
        JSON.stringify(entry),
      );
    }
    // Parked before they are started: a run that is cancelled while it waits adds its end to the journal at once.
    const more = run.entries > seen;
    this.#database.run(
      `UPDATE runs SET state = ?, owner = CASE ? WHEN 1 THEN owner ELSE NULL END, status = 'running', error = NULL, entries = ?, commands = ?, seen = ?, retries = 0, lost_ticks = 0 WHERE seq = ?`,
      more ? ACTIVE : PARKED,
      more ? 1 : 0,
      run.entries + fresh.length,
      run.commands + fresh.length,
      seen,
      run.seq,
    );
    for (const command of fresh) this.#start(run, command);
    return more ? "more" : "done";
  }

  #start(run: RunRow, command: Command): void {
    switch (command.do) {
      case "run":
        insertRun(this.#database, command.run, this.#retentionMs, { id: run.id, n: command.n });
        return;
      case "sleep":
        return this.#time(run, command.n, command.untilMs);
      case "await":
        if (command.untilMs !== undefined) this.#time(run, command.n, command.untilMs);
        return;
      case "cancel":
        this.#database.run("DELETE FROM timers WHERE run = ? AND n = ?", run.seq, command.of);
        cancelRun(this.#database, `${run.id}.${command.of}`);
    }
  }

  #time(run: RunRow, n: number, dueAtMs: number): void {
    this.#database.run("INSERT INTO timers (run, n, due_at) VALUES (?, ?, ?)", run.seq, n, dueAtMs);
  }
}

/** Whether a signal that has come since must be seen first: a run that was cancelled ends as it is. */
function endsOverSignals(result: Answer): boolean {
  return result.do === "complete" || (result.do === "settle" && result.status === "failed");
}
