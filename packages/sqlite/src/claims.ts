import { definitionKey, type DefinitionSpec, type ErrorRecord, type Headers, type Json, type Priority } from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import { DamagedRowError, isRefusal } from "./errors.ts";
import type { Row } from "./mapping.ts";
import { ACTIVE, READY, TASK_LANE, WORKFLOW_LANE } from "./schema.ts";
import { settleDamaged } from "./settling.ts";
import { count, errorOf, headersOf, jsonOf, priorityOf, text, textOrNull } from "./stored.ts";
import { settleUnreadable } from "./upkeep.ts";

/** A run as it was when a worker claimed it. */
export interface Claim {
  readonly seq: number;
  readonly id: string;
  readonly lane: number;
  readonly name: string;
  readonly queue: string;
  readonly version: string | null;
  readonly priority: Priority;
  readonly attempts: number;
  readonly startedAtMs: number;
  readonly lostTicks: number;
  readonly headers: Headers;
  readonly input: Json;
  readonly previousError?: ErrorRecord;
}

interface Candidate {
  readonly seq: number;
  readonly priority: number;
}

const RETURNING = "RETURNING seq, id, lane, name, queue, version, priority, attempts, started_at, lost_ticks, headers, input, error";

/** Finds and claims ready runs for one worker: only from its queues, only with its definitions. */
export class Claims {
  readonly #database: Database;
  readonly #queues: readonly string[];
  readonly #definitions: readonly DefinitionSpec[];
  readonly #lanes: readonly { readonly lane: number; readonly sql: string; readonly keys: readonly string[] }[];

  constructor(database: Database, queues: readonly string[], definitions: readonly DefinitionSpec[]) {
    this.#database = database;
    this.#queues = queues;
    this.#definitions = definitions;
    const workflows = definitions.filter((definition) => definition.kind === "workflow");
    // A workflow submitted by name only waits among the tasks, because only a worker that has it knows that it is a workflow.
    const tasks = [...new Set(definitions.map((definition) => definition.name))];
    this.#lanes = [laneOf(TASK_LANE, tasks), laneOf(WORKFLOW_LANE, workflows.map(definitionKey))];
  }

  /** Whether a claim would find a ready run. This only reads, without a lock. */
  any(free: number): boolean {
    return this.#lanes.some(
      ({ lane, sql, keys }) =>
        (lane === WORKFLOW_LANE || free > 0) &&
        this.#queues.some((queue) => this.#database.get(`SELECT 1 FROM (${sql})`, queue, ...keys, 1)),
    );
  }

  /** Claims up to `free` tasks and `ticks` workflow runs, and settles those that cannot be read. Inside a transaction. */
  take(owner: string, free: number, ticks: number): Claim[] {
    const claims: Claim[] = [];
    for (const { lane, sql, keys } of this.#lanes) {
      const limit = lane === TASK_LANE ? free : ticks;
      if (limit <= 0) continue;
      for (const { seq } of this.#readableBest(sql, keys, limit)) {
        try {
          claims.push(lane === TASK_LANE ? this.#takeTask(seq, owner) : this.#takeWorkflow(seq, owner));
        } catch (error) {
          if (!isRefusal(error)) throw error;
          settleDamaged(this.#database, "seq", seq, error);
        }
      }
    }
    return claims;
  }

  #readableBest(sql: string, keys: readonly string[], limit: number): Candidate[] {
    try {
      return this.#best(sql, keys, limit);
    } catch (error) {
      if (!(error instanceof DamagedRowError)) throw error;
      settleUnreadable(this.#database);
      return this.#best(sql, keys, limit);
    }
  }

  /** The best runs of all queues: higher priority first, then in order of submission. */
  #best(sql: string, keys: readonly string[], limit: number): Candidate[] {
    const found = this.#queues.flatMap((queue) => this.#database.all<Candidate>(sql, queue, ...keys, limit));
    if (this.#queues.length === 1) return found;
    return found.sort((a, b) => b.priority - a.priority || a.seq - b.seq).slice(0, limit);
  }

  #takeTask(seq: number, owner: string): Claim {
    const row = this.#database.get<Row>(
      `UPDATE runs SET state = ${ACTIVE}, status = 'running', owner = ?, by_name = 0, attempts = attempts + 1, started_at = COALESCE(started_at, ?) WHERE seq = ? AND typeof(attempts) = 'integer' ${RETURNING}`,
      owner,
      Date.now(),
      seq,
    );
    const claim = toClaim(row);
    const workflow = this.#definitions.findLast((definition) => definition.kind === "workflow" && definition.name === claim.name);
    if (!workflow) return claim;
    this.#database.run(
      "UPDATE runs SET lane = ?, version = ?, definition = ? WHERE seq = ?",
      WORKFLOW_LANE,
      workflow.version ?? null,
      definitionKey(workflow),
      seq,
    );
    return { ...claim, lane: WORKFLOW_LANE, version: workflow.version ?? null };
  }

  #takeWorkflow(seq: number, owner: string): Claim {
    return toClaim(
      this.#database.get<Row>(
        `UPDATE runs SET state = ${ACTIVE}, status = CASE status WHEN 'retrying' THEN status ELSE 'running' END, owner = ?, attempts = 1, started_at = COALESCE(started_at, ?) WHERE seq = ? ${RETURNING}`,
        owner,
        Date.now(),
        seq,
      ),
    );
  }
}

function laneOf(lane: number, keys: readonly string[]): { lane: number; sql: string; keys: readonly string[] } {
  const marks = keys.map(() => "?").join(", ");
  return {
    lane,
    keys,
    sql: `SELECT seq, priority FROM runs WHERE open = ${READY} AND queue = ? AND lane = ${lane} AND definition IN (${marks}) ORDER BY priority DESC, seq LIMIT ? + 0`,
  };
}

/** @throws DamagedRowError */
function toClaim(row: Row | undefined): Claim {
  if (!row) throw new DamagedRowError("Its attempts are not a number.");
  const { error } = row;
  return {
    seq: count(row["seq"], "seq"),
    id: text(row["id"], "id"),
    lane: count(row["lane"], "lane"),
    name: text(row["name"], "name"),
    queue: text(row["queue"], "queue"),
    version: textOrNull(row["version"], "version"),
    priority: priorityOf(row["priority"]),
    attempts: count(row["attempts"], "attempts"),
    startedAtMs: count(row["started_at"], "started_at"),
    lostTicks: count(row["lost_ticks"], "lost_ticks"),
    headers: headersOf(row["headers"]),
    input: jsonOf(row["input"], "input"),
    ...(error !== null && { previousError: errorOf(error) }),
  };
}
