import {
  endsOverSignals,
  type Answer,
  type Command,
  type DrivenRun,
  type JournalEntry,
  type JournalSlice,
  type JournalStore,
} from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import { DamagedRowError } from "./errors.ts";
import { insertRun } from "./runs.ts";
import { ACTIVE, DELAYED, PARKED } from "./schema.ts";
import { cancelRun, insertEntry, setTimer, settleRun, SETTLEMENT_COLUMNS, type Settlement } from "./settling.ts";
import { count, entryOf, storedMs } from "./stored.ts";

interface RunRow extends Settlement {
  readonly entries: number;
  readonly seen: number;
  readonly commands: number;
  readonly retries: number;
}

/** A run for a tick, with its owner. */
export interface OwnedRun extends DrivenRun {
  readonly owner: string;
}

/**
 * The journals of workflow runs. Steps, timers and signals append to them as they happen, in `settling.ts`;
 * an answer is carried out in one transaction, fenced by the owner of the run.
 */
export class SqliteJournal implements JournalStore<OwnedRun> {
  readonly #database: Database;
  readonly #retentionMs: number;
  readonly #onWrite: () => void;

  /** @param onWrite called when a transaction is about to begin, so that the worker can add its claims */
  constructor(database: Database, retentionMs: number, onWrite: () => void) {
    this.#database = database;
    this.#retentionMs = retentionMs;
    this.#onWrite = onWrite;
  }

  /** @throws DamagedRowError when the journal cannot be read */
  async load({ id, owner }: OwnedRun, from: number): Promise<JournalSlice | "lost"> {
    return this.#database.read(() => {
      const run = this.#find(id, owner);
      return run ? { entries: this.#entries(run, from), seen: run.seen, commandsSeen: run.commands, retries: run.retries } : "lost";
    });
  }

  #entries(run: RunRow, from: number): JournalEntry[] {
    const rows = this.#database.all<{ position: unknown; entry: unknown }>(
      "SELECT position, entry FROM journal WHERE run = ? AND position >= ? ORDER BY position",
      run.seq,
      from,
    );
    // There may be more rows, added since the run was read; fewer rows mean a gap.
    if (rows.length < run.entries - from || rows.some(({ position }, index) => position !== from + index))
      throw new DamagedRowError("Entries of its journal are missing.");
    return rows.map(({ entry }) => entryOf(entry));
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
          storedMs(Date.now() + result.delayMs),
          JSON.stringify(result.error),
          run.seq,
        );
        return "done";
      case "release":
        this.#database.run(
          `UPDATE runs SET state = ${DELAYED}, run_at = ?, owner = NULL WHERE seq = ?`,
          storedMs(Date.now() + result.delayMs),
          run.seq,
        );
        return "done";
    }
  }

  #signalSince(run: RunRow, seen: number): boolean {
    return run.entries > seen && this.#entries(run, seen).some(({ type }) => type === "signal");
  }

  /** @throws DamagedRowError */
  #find(id: string, owner: string): RunRow | undefined {
    const run = this.#database.get<RunRow>(
      `SELECT ${SETTLEMENT_COLUMNS}, entries, seen, commands, retries FROM runs WHERE id = ? AND owner = ? AND state = ${ACTIVE}`,
      id,
      owner,
    );
    if (!run) return undefined;
    for (const column of ["entries", "seen", "commands", "retries"] as const) count(run[column], column);
    return run;
  }

  /** Records the commands and starts each, once per number; then parks the run, unless further entries have arrived. */
  #wait(run: RunRow, seen: number, commands: readonly Command[]): "done" | "more" {
    const fresh = commands.filter((command) => command.n >= run.commands);
    for (const [index, command] of fresh.entries()) {
      insertEntry(this.#database, run.seq, run.entries + index, { type: "command", n: command.n, key: command.key });
    }
    // The run is parked before its steps start: the cancellation of a step that still waits adds an entry to the journal at once.
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
        return setTimer(this.#database, run.seq, command.n, command.untilMs);
      case "await":
        if (command.untilMs !== undefined) setTimer(this.#database, run.seq, command.n, command.untilMs);
        return;
      case "cancel":
        this.#database.run("DELETE FROM timers WHERE run = ? AND n = ?", run.seq, command.of);
        cancelRun(this.#database, `${run.id}.${command.of}`);
    }
  }
}
