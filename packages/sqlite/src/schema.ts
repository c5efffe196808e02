/*
 * Each index costs every run a page of the log, so there is none for rows that can be found by the id: the children of a workflow,
 * for example, have ids that begin with its own.
 *
 * A run is a row of `runs`. `state` drives the scheduling, `status` is shown to users.
 * A worker owns its active runs through its row in `workers`, whose lease it renews; the owner of a run fences its writes.
 */

/** Marks the file as ours ("task" in ASCII). */
export const APPLICATION_ID = 0x7461736b;

/** Values of `runs.state`. */
export const READY = 0;
export const DELAYED = 1;
export const ACTIVE = 2;
/** A workflow that waits for its steps, timers or signals. */
export const PARKED = 3;
export const SETTLED = 4;

/** Values of `runs.lane`: only tasks take slots of a worker. */
export const TASK_LANE = 0;
export const WORKFLOW_LANE = 1;

/** Step `i` takes a file from schema version `i` to `i + 1`. Append only. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE runs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    lane INTEGER NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    definition TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state INTEGER NOT NULL,
    open INTEGER AS (CASE WHEN state IN (0, 2) THEN state END) VIRTUAL,
    status TEXT NOT NULL,
    run_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT,
    parent TEXT,
    parent_n INTEGER,
    submitted_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    entries INTEGER NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 0,
    commands INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    lost_ticks INTEGER NOT NULL DEFAULT 0,
    headers TEXT NOT NULL,
    input TEXT NOT NULL,
    progress TEXT,
    output TEXT,
    error TEXT
  );
  -- Ready and active runs share an index: a claim moves its entry within one page, most of the time.
  CREATE INDEX runs_open ON runs (open, queue, lane, priority DESC, seq, definition) WHERE open IS NOT NULL;
  CREATE INDEX runs_delayed ON runs (run_at) WHERE state = 1;
  CREATE INDEX runs_cancelling ON runs (owner) WHERE state = 2 AND cancel_requested = 1;
  CREATE UNIQUE INDEX runs_idempotency ON runs (name, queue, idempotency_key) WHERE idempotency_key IS NOT NULL;

  -- One row a settled run, in the order they settled: the stream that waits follow, and the queue of the retention.
  CREATE TABLE settlements (seq INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, finished_at INTEGER NOT NULL);

  CREATE TABLE journal (run INTEGER NOT NULL, position INTEGER NOT NULL, entry TEXT NOT NULL, PRIMARY KEY (run, position)) WITHOUT ROWID;
  CREATE TABLE timers (run INTEGER NOT NULL, n INTEGER NOT NULL, due_at INTEGER NOT NULL, PRIMARY KEY (run, n)) WITHOUT ROWID;
  CREATE INDEX timers_due ON timers (due_at);
  CREATE TABLE signal_ids (run INTEGER NOT NULL, dedupe_id TEXT NOT NULL, PRIMARY KEY (run, dedupe_id)) WITHOUT ROWID;
  CREATE TABLE workers (id TEXT PRIMARY KEY, name TEXT NOT NULL, lease_until INTEGER NOT NULL) WITHOUT ROWID;
  `,
  // Since this step leases do not depend on the wall clock.
  `
  ALTER TABLE workers RENAME COLUMN lease_until TO renewals;
  ALTER TABLE workers ADD COLUMN lease_ms INTEGER NOT NULL DEFAULT 30000;
  `,
  // Whether a run was submitted by its name only, and no worker has told its kind yet. For older waiting tasks this is unknown, so 1.
  `
  ALTER TABLE runs ADD COLUMN by_name INTEGER NOT NULL DEFAULT 0;
  UPDATE runs SET by_name = 1 WHERE lane = 0 AND state IN (0, 1) AND started_at IS NULL;
  `,
];
