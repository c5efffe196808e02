import { definitionKey, type DefinitionSpec, type ErrorRecord, type Headers, type Json, type Priority } from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import { fromPriority } from "./mapping.ts";
import { ACTIVE, READY, TASK_LANE, WORKFLOW_LANE } from "./schema.ts";

/** A run that a worker has taken, as it was at that moment. */
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

interface ClaimRow {
  readonly seq: number;
  readonly id: string;
  readonly lane: number;
  readonly name: string;
  readonly queue: string;
  readonly version: string | null;
  readonly priority: number;
  readonly attempts: number;
  readonly started_at: number;
  readonly lost_ticks: number;
  readonly headers: string;
  readonly input: string;
  readonly error: string | null;
}

interface Candidate {
  readonly seq: number;
  readonly priority: number;
}

const RETURNING = "RETURNING seq, id, lane, name, queue, version, priority, attempts, started_at, lost_ticks, headers, input, error";

/** Finds and takes ready runs for one worker: only its queues, only what it has definitions for. */
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
    // A workflow submitted by name only waits among the tasks: only a worker that has it knows what it is.
    const tasks = [...new Set(definitions.map((definition) => definition.name))];
    this.#lanes = [laneOf(TASK_LANE, tasks), laneOf(WORKFLOW_LANE, workflows.map(definitionKey))];
  }

  /** Whether a claim would find something ready: a read, without any lock. */
  any(free: number): boolean {
    return this.#lanes.some(
      ({ lane, sql, keys }) =>
        (lane === WORKFLOW_LANE || free > 0) && this.#queues.some((queue) => this.#database.get(sql, queue, ...keys, 1)),
    );
  }

  /** Takes up to `free` tasks and `ticks` workflow runs. Inside a transaction. */
  take(owner: string, free: number, ticks: number): Claim[] {
    const claims: Claim[] = [];
    for (const { lane, sql, keys } of this.#lanes) {
      const limit = lane === TASK_LANE ? free : ticks;
      if (limit <= 0) continue;
      for (const { seq } of this.#best(sql, keys, limit))
        claims.push(lane === TASK_LANE ? this.#takeTask(seq, owner) : this.#takeWorkflow(seq, owner));
    }
    return claims;
  }

  /** Over all queues: higher priority first, then in order of submission. */
  #best(sql: string, keys: readonly string[], limit: number): Candidate[] {
    const found = this.#queues.flatMap((queue) => this.#database.all<Candidate>(sql, queue, ...keys, limit));
    if (this.#queues.length === 1) return found;
    return found.sort((a, b) => b.priority - a.priority || a.seq - b.seq).slice(0, limit);
  }

  #takeTask(seq: number, owner: string): Claim {
    const row = this.#database.get<ClaimRow>(
      `UPDATE runs SET state = ${ACTIVE}, status = 'running', owner = ?, attempts = attempts + 1, started_at = COALESCE(started_at, ?) WHERE seq = ? ${RETURNING}`,
      owner,
      Date.now(),
      seq,
    ) as ClaimRow;
    const workflow = this.#definitions.findLast((definition) => definition.kind === "workflow" && definition.name === row.name);
    if (!workflow) return toClaim(row);
    this.#database.run(
      "UPDATE runs SET lane = ?, version = ?, definition = ? WHERE seq = ?",
      WORKFLOW_LANE,
      workflow.version ?? null,
      definitionKey(workflow),
      seq,
    );
    return toClaim({ ...row, lane: WORKFLOW_LANE, version: workflow.version ?? null });
  }

  #takeWorkflow(seq: number, owner: string): Claim {
    const row = this.#database.get<ClaimRow>(
      `UPDATE runs SET state = ${ACTIVE}, status = CASE status WHEN 'retrying' THEN status ELSE 'running' END, owner = ?, attempts = 1, started_at = COALESCE(started_at, ?) WHERE seq = ? ${RETURNING}`,
      owner,
      Date.now(),
      seq,
    );
    return toClaim(row as ClaimRow);
  }
}

function laneOf(lane: number, keys: readonly string[]): { lane: number; sql: string; keys: readonly string[] } {
  const marks = keys.map(() => "?").join(", ");
  return {
    lane,
    keys,
    sql: `SELECT seq, priority FROM runs WHERE open = ${READY} AND queue = ? AND lane = ${lane} AND definition IN (${marks}) ORDER BY priority DESC, seq LIMIT ?`,
  };
}

function toClaim(row: ClaimRow): Claim {
  return {
    seq: row.seq,
    id: row.id,
    lane: row.lane,
    name: row.name,
    queue: row.queue,
    version: row.version,
    priority: fromPriority(row.priority),
    attempts: row.attempts,
    startedAtMs: row.started_at,
    lostTicks: row.lost_ticks,
    headers: JSON.parse(row.headers) as Headers,
    input: JSON.parse(row.input) as Json,
    ...(row.error !== null && { previousError: JSON.parse(row.error) as ErrorRecord }),
  };
}
