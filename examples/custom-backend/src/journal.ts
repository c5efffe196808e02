import {
  endsOverSignals,
  type Answer,
  type Command,
  type DrivenRun,
  type JournalEntry,
  type JournalSlice,
  type JournalStore,
} from "@task-backend/core/adapter";
import type { Database, Sql } from "./database.ts";
import { cancel, insertRuns, lockOwned, settle, type Row } from "./runs.ts";

/** A run for a tick, with its owner. */
export interface OwnedRun extends DrivenRun {
  readonly owner: string;
}

/** The journals of workflow runs: `runs.ts` adds entries as they happen, and an answer is carried out in one transaction. */
export class PostgresJournal implements JournalStore<OwnedRun> {
  readonly #database: Database;
  readonly #retentionMs: number;

  constructor(database: Database, retentionMs: number) {
    this.#database = database;
    this.#retentionMs = retentionMs;
  }

  async load({ id, owner }: OwnedRun, from: number): Promise<JournalSlice | "lost"> {
    const [run] = await this.#database.sql<Row & { readonly journal: readonly string[] }>(
      `SELECT *, ARRAY(SELECT entry FROM journal WHERE run = id AND position BETWEEN $3 AND entries - 1 ORDER BY position) AS journal
       FROM runs WHERE id = $1 AND owner = $2 AND state = 'active'`,
      [id, owner, from],
    );
    if (!run) return "lost";
    const { journal, seen, commands: commandsSeen, retries } = run;
    return { entries: journal.map((entry) => JSON.parse(entry) as JournalEntry), seen, commandsSeen, retries };
  }

  commit(
    { id, owner }: OwnedRun,
    seen: number,
    answer: Answer,
    reordered: readonly JournalEntry[] = [],
  ): Promise<"done" | "more" | "lost"> {
    return this.#database.transaction(async (sql) => {
      const run = await lockOwned(sql, id, owner);
      if (!run) return "lost";
      if (endsOverSignals(answer) && (await signalSince(sql, run, seen))) return "more";
      for (const [index, entry] of reordered.entries())
        await sql("UPDATE journal SET entry = $3 WHERE run = $1 AND position = $2", [id, run.seen + index, JSON.stringify(entry)]);
      if (answer.do === "wait") return this.#wait(sql, run, seen, answer.commands);
      if (answer.do === "complete") await settle(sql, run, { status: "completed", output: answer.output });
      else if (answer.do === "settle") await settle(sql, run, answer);
      else {
        const error = answer.do === "retry" ? JSON.stringify(answer.error) : null;
        await sql(
          `UPDATE runs SET state = 'delayed', run_at = now_ms() + $2::float8, owner = NULL, lost_ticks = 0, error = coalesce($3::text, error),
             status = CASE WHEN $3 IS NULL THEN status ELSE 'retrying' END, retries = retries + CASE WHEN $3 IS NULL THEN 0 ELSE 1 END
           WHERE id = $1`,
          [id, answer.delayMs, error],
        );
      }
      return "done";
    });
  }

  /** Records the commands and starts each, once per number; then parks the run, unless further entries have arrived. */
  async #wait(sql: Sql, run: Row, seen: number, commands: readonly Command[]): Promise<"done" | "more"> {
    const fresh = commands.filter(({ n }) => n >= run.commands);
    const entries = fresh.map(({ n, key }): JournalEntry => ({ type: "command", n, key }));
    await sql(
      "INSERT INTO journal (run, position, entry) SELECT $1, $2::int + ordinality - 1, e FROM unnest($3::text[]) WITH ORDINALITY AS t(e)",
      [run.id, run.entries, entries.map((entry) => JSON.stringify(entry))],
    );
    // The run is parked before its steps start: the cancellation of a step that still waits adds an entry to the journal at once.
    const more = run.entries > seen;
    await sql(
      `UPDATE runs SET state = $2, owner = $3, status = 'running', error = NULL, entries = entries + $4, commands = commands + $4,
         seen = $5, retries = 0, lost_ticks = 0 WHERE id = $1`,
      [run.id, more ? "active" : "parked", more ? run.owner : null, fresh.length, seen],
    );
    for (const command of fresh) await this.#start(sql, run, command);
    return more ? "more" : "done";
  }

  async #start(sql: Sql, run: Row, command: Command): Promise<void> {
    if (command.do === "run") await insertRuns(sql, [command.run], this.#retentionMs, { id: run.id, n: command.n });
    else if (command.do === "cancel") {
      await sql("DELETE FROM timers WHERE run = $1 AND n = $2", [run.id, command.of]);
      await cancel(sql, `${run.id}.${command.of}`);
    } else if (command.untilMs !== undefined)
      await sql("INSERT INTO timers (run, n, due_at) VALUES ($1, $2, $3)", [run.id, command.n, command.untilMs]);
  }
}

async function signalSince(sql: Sql, run: Row, seen: number): Promise<boolean> {
  if (run.entries <= seen) return false;
  const rows = await sql<{ entry: string }>("SELECT entry FROM journal WHERE run = $1 AND position >= $2", [run.id, seen]);
  return rows.some(({ entry }) => (JSON.parse(entry) as JournalEntry).type === "signal");
}
