import { randomUUID } from "node:crypto";
import { definitionKey, type RunRequest, type SignalRequest, type SubmitOutcome } from "@task-backend/core/adapter";
import type { Database } from "./database.ts";
import { toPriority } from "./mapping.ts";
import { DELAYED, PARKED, READY, SETTLED, TASK_LANE, WORKFLOW_LANE } from "./schema.ts";
import { appendEntry, removeRun, withRun } from "./settling.ts";
import { storedMs } from "./stored.ts";

/*
 * How runs are submitted and signalled. Each function is called inside a transaction of the writer.
 */

/** The run that started this one, and the number of the command. */
export interface Parent {
  readonly id: string;
  readonly n: number;
}

const INSERT = `INSERT INTO runs (id, lane, name, version, definition, by_name, queue, priority, state, status, run_at, idempotency_key, parent, parent_n, submitted_at, headers, input)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

/** Adds a run, or finds the one with the same idempotency key. */
export function insertRun(database: Database, request: RunRequest, retentionMs: number, parent?: Parent): SubmitOutcome {
  // The key is stored as JSON text, which can hold any string: SQLite would cut it at a null character.
  const key = request.idempotencyKey === undefined ? null : JSON.stringify(request.idempotencyKey);
  if (key !== null) {
    const existing = findByKey(database, request, key, retentionMs);
    if (existing !== undefined) return { id: existing, deduplicated: true };
  }
  const now = Date.now();
  const id = parent ? `${parent.id}.${parent.n}` : newId(now);
  const runAtMs = request.runAtMs === undefined ? null : storedMs(request.runAtMs);
  const later = runAtMs !== null && runAtMs > now;
  database.run(
    INSERT,
    id,
    request.kind === "task" ? TASK_LANE : WORKFLOW_LANE,
    request.name,
    request.version ?? null,
    definitionKey(request),
    request.definition === undefined ? 1 : 0,
    request.queue,
    toPriority(request.priority),
    later ? DELAYED : READY,
    later ? "scheduled" : "pending",
    runAtMs,
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
  // The id begins with the time, so that new ids go to the end of their index.
  return now.toString(36).padStart(9, "0") + randomUUID().replaceAll("-", "").slice(0, 16);
}

function findByKey(database: Database, request: RunRequest, key: string, retentionMs: number): string | undefined {
  const row = database.get<{ seq: number; id: string; kept: number }>(
    `SELECT seq, id, state <> ${SETTLED} OR finished_at > ? AS kept FROM runs WHERE name = ? AND queue = ? AND idempotency_key = ?`,
    Date.now() - retentionMs,
    request.name,
    request.queue,
    key,
  );
  if (!row || row.kept === 1) return row?.id;
  // Its settlement stays until the next pruning, which checks whether the seq belongs to another run by then.
  removeRun(database, row.seq);
  return undefined;
}

/** Makes a parked workflow ready for a tick. */
export function wakeRun(database: Database, id: string): void {
  database.run(`UPDATE runs SET state = ${READY} WHERE id = ? AND state = ${PARKED}`, id);
}

export function signalRun(database: Database, id: string, request: SignalRequest): "accepted" | "settled" | "unknown" | "not-a-workflow" {
  return withRun(database, id, "settled", () => {
    const run = database.get<{ seq: number; state: number; lane: number; by_name: number }>(
      "SELECT seq, state, lane, by_name FROM runs WHERE id = ?",
      id,
    );
    if (!run) return "unknown";
    if (run.state === SETTLED) return "settled";
    // A run submitted by name only has no kind until a worker claims it.
    if (run.lane === TASK_LANE && run.by_name === 0) return "not-a-workflow";
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
  });
}
