import { SIGNAL_BEGINS } from "../mapping.ts";

/** Raised with every change below; a database with another number gets all tables and functions anew. */
export const FUNCTIONS_VERSION = 3;

/*
 * Our tables and functions, in BullMQ's schema. A function of ours calls BullMQ's within its transaction, so that a
 * check, the journal and the move of the job are one atomic step. Rows are always locked in the same order: a run's workflow row,
 * then its job, then the rows of its parent workflow.
 *
 * A row of `task_backend_workflow` lives until the run settles; rows of the other tables are deleted with it.
 */
export const TABLES_AND_FUNCTIONS = `
CREATE TABLE IF NOT EXISTS task_backend_workflow (
  queue text NOT NULL,
  id text NOT NULL,
  started_at bigint,
  version text,
  entries integer NOT NULL DEFAULT 0,
  seen integer NOT NULL DEFAULT 0,
  commands integer NOT NULL DEFAULT 0,
  retries integer NOT NULL DEFAULT 0,
  stalls integer NOT NULL DEFAULT 0,
  parked boolean NOT NULL DEFAULT false,
  cancelled boolean NOT NULL DEFAULT false,
  error text,
  outbox text,
  ending text,
  PRIMARY KEY (queue, id),
  FOREIGN KEY (queue, id) REFERENCES job (queue, id) ON DELETE CASCADE
);
ALTER TABLE task_backend_workflow ADD COLUMN IF NOT EXISTS closing boolean NOT NULL DEFAULT false;
CREATE TABLE IF NOT EXISTS task_backend_journal (
  queue text NOT NULL, id text NOT NULL, position integer NOT NULL, entry text NOT NULL,
  PRIMARY KEY (queue, id, position),
  FOREIGN KEY (queue, id) REFERENCES task_backend_workflow (queue, id) ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS task_backend_timer (
  queue text NOT NULL, id text NOT NULL, n integer NOT NULL, due_at bigint NOT NULL,
  PRIMARY KEY (queue, id, n),
  FOREIGN KEY (queue, id) REFERENCES task_backend_workflow (queue, id) ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS task_backend_child (
  queue text NOT NULL, id text NOT NULL, n integer NOT NULL, run text NOT NULL,
  PRIMARY KEY (queue, id, n),
  FOREIGN KEY (queue, id) REFERENCES task_backend_workflow (queue, id) ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS task_backend_signal (
  queue text NOT NULL, id text NOT NULL, dedupe_id text NOT NULL,
  PRIMARY KEY (queue, id, dedupe_id),
  FOREIGN KEY (queue, id) REFERENCES task_backend_workflow (queue, id) ON DELETE CASCADE
);

-- Functions that earlier versions had under the same names.
DROP FUNCTION IF EXISTS task_backend_append(text, text, text);
DROP FUNCTION IF EXISTS task_backend_fire(text, text, bigint);
DROP FUNCTION IF EXISTS task_backend_tell(text, text, integer, text);
DROP FUNCTION IF EXISTS task_backend_send(text, text, text, text, boolean);
DROP FUNCTION IF EXISTS task_backend_finish_workflow(
  text, text, text, jsonb, text, jsonb, bigint, bigint, text, text, integer, text, boolean, text
);

-- Locks the job's row; fails unless the token still holds the job.
CREATE OR REPLACE FUNCTION task_backend_hold(p_queue text, p_id text, p_token text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM 1 FROM job WHERE queue = p_queue AND id = p_id AND state = 'active' AND lock_token = p_token FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'task-backend: job % is held by another', p_id USING ERRCODE = 'BM001', DETAIL = '-6';
  END IF;
END;
$$;

-- Records the timers that are due, in their order, and returns their number. The workflow's row must be locked.
CREATE OR REPLACE FUNCTION task_backend_fire(p_queue text, p_id text, p_now bigint) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  v_fired integer;
BEGIN
  WITH due AS (
    DELETE FROM task_backend_timer WHERE queue = p_queue AND id = p_id AND due_at <= p_now RETURNING n, due_at
  )
  INSERT INTO task_backend_journal
    SELECT p_queue, p_id, w.entries + row_number() OVER (ORDER BY due.due_at, due.n) - 1,
           json_build_object('type', 'fired', 'n', due.n, 'atMs', p_now, 'dueMs', due.due_at)::text
      FROM due JOIN task_backend_workflow w ON w.queue = p_queue AND w.id = p_id;
  GET DIAGNOSTICS v_fired = ROW_COUNT;
  IF v_fired > 0 THEN
    UPDATE task_backend_workflow SET entries = entries + v_fired WHERE queue = p_queue AND id = p_id;
  END IF;
  RETURN v_fired;
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_wake(p_queue text, p_id text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE task_backend_workflow SET parked = false WHERE queue = p_queue AND id = p_id AND parked;
  IF FOUND THEN
    PERFORM promote(p_queue, p_id);
  END IF;
END;
$$;

-- Timers that are due come before the entry, whether or not a worker was up.
CREATE OR REPLACE FUNCTION task_backend_append(p_queue text, p_id text, p_entry text, p_now bigint) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  v_position integer;
  v_parked boolean;
BEGIN
  SELECT entries, parked INTO v_position, v_parked FROM task_backend_workflow WHERE queue = p_queue AND id = p_id FOR UPDATE;
  v_position := v_position + task_backend_fire(p_queue, p_id, p_now);
  INSERT INTO task_backend_journal VALUES (p_queue, p_id, v_position, p_entry);
  UPDATE task_backend_workflow SET entries = v_position + 1, parked = false WHERE queue = p_queue AND id = p_id;
  IF v_parked THEN
    PERFORM promote(p_queue, p_id);
  END IF;
END;
$$;

-- Tells the parent workflow of a run once, unless the parent has settled.
CREATE OR REPLACE FUNCTION task_backend_tell(p_queue text, p_id text, p_n integer, p_entry text, p_now bigint) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF p_n IS NULL THEN
    RETURN;
  END IF;
  PERFORM 1 FROM task_backend_workflow WHERE queue = p_queue AND id = p_id AND started_at IS NOT NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  DELETE FROM task_backend_child WHERE queue = p_queue AND id = p_id AND n = p_n;
  IF FOUND THEN
    PERFORM task_backend_append(p_queue, p_id, p_entry, p_now);
  END IF;
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_send(
  p_queue text, p_id text, p_entry text, p_dedupe_id text, p_workflow boolean, p_now bigint, p_patient boolean
) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  v_finished bigint;
  v_kind text;
  v_ending text;
  v_begun bigint;
  v_closing boolean;
  v_fresh boolean;
BEGIN
  SELECT finished_at_ms, CASE WHEN p_workflow THEN 'workflow' ELSE data->>'kind' END INTO v_finished, v_kind
    FROM job WHERE queue = p_queue AND id = p_id;
  IF NOT FOUND THEN
    RETURN 'unknown';
  END IF;
  IF v_finished IS NOT NULL THEN
    RETURN 'settled';
  END IF;
  IF v_kind = 'task' THEN
    RETURN 'not-a-workflow';
  END IF;
  BEGIN
    INSERT INTO task_backend_workflow (queue, id) VALUES (p_queue, p_id) ON CONFLICT DO NOTHING;
    v_fresh := FOUND;
  EXCEPTION WHEN foreign_key_violation THEN
    RETURN 'unknown';
  END;
  -- The end of a workflow locks this row first. The job is not locked: a claim skips locked jobs, so a steady flow of signals could
  -- keep it from ever being claimed.
  SELECT ending, started_at, closing INTO v_ending, v_begun, v_closing FROM task_backend_workflow
   WHERE queue = p_queue AND id = p_id FOR UPDATE;
  SELECT finished_at_ms, CASE WHEN p_workflow THEN 'workflow' ELSE data->>'kind' END INTO v_finished, v_kind
    FROM job WHERE queue = p_queue AND id = p_id;
  IF NOT FOUND OR v_finished IS NOT NULL OR v_ending IS NOT NULL THEN
    DELETE FROM task_backend_workflow WHERE queue = p_queue AND id = p_id AND v_ending IS NULL;
    RETURN 'settled';
  END IF;
  -- The foreign key of the new row locks the job meanwhile, so a claim may have skipped it.
  IF v_fresh THEN
    PERFORM pg_notify('bullmq_jobs', p_queue);
  END IF;
  -- A worker may have found that it is a task between the two queries.
  IF v_kind = 'task' AND v_begun IS NULL THEN
    DELETE FROM task_backend_workflow WHERE queue = p_queue AND id = p_id;
    RETURN 'not-a-workflow';
  END IF;
  IF p_patient AND v_closing THEN
    RETURN 'closing';
  END IF;
  IF p_dedupe_id IS NOT NULL THEN
    INSERT INTO task_backend_signal VALUES (p_queue, p_id, p_dedupe_id) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      RETURN 'accepted';
    END IF;
  END IF;
  PERFORM task_backend_append(p_queue, p_id, p_entry, p_now);
  RETURN 'accepted';
END;
$$;

-- Marks a run submitted by name only as a task: its signals are dropped, and refused from now on.
CREATE OR REPLACE FUNCTION task_backend_mark_task(p_queue text, p_id text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM task_backend_workflow WHERE queue = p_queue AND id = p_id AND started_at IS NULL;
  UPDATE job SET data = jsonb_set(data, '{kind}', '"task"') WHERE queue = p_queue AND id = p_id AND jsonb_typeof(data) = 'object';
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_cancel(
  p_queue text, p_id text, p_token text, p_now bigint, p_entry text, p_reason text, p_stacktrace jsonb, p_keep_age bigint,
  p_run text, p_parent_queue text, p_parent_id text, p_parent_n integer, p_parent_entry text
) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  v_begun bigint;
  v_cancelled boolean;
  v_state job_state;
BEGIN
  SELECT started_at, cancelled INTO v_begun, v_cancelled FROM task_backend_workflow WHERE queue = p_queue AND id = p_id FOR UPDATE;
  SELECT state INTO v_state FROM job WHERE queue = p_queue AND id = p_id FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 'unknown';
  END IF;
  IF v_state IN ('completed', 'failed') THEN
    RETURN 'settled';
  END IF;
  -- A workflow may have started between the two locks.
  IF v_begun IS NULL THEN
    SELECT started_at, cancelled INTO v_begun, v_cancelled FROM task_backend_workflow WHERE queue = p_queue AND id = p_id;
  END IF;
  IF v_begun IS NOT NULL THEN
    IF NOT v_cancelled THEN
      UPDATE task_backend_workflow SET cancelled = true, parked = false WHERE queue = p_queue AND id = p_id;
      PERFORM task_backend_append(p_queue, p_id, p_entry, p_now);
      PERFORM promote(p_queue, p_id);
    END IF;
    -- A claim may have skipped the locked job meanwhile.
    PERFORM pg_notify('bullmq_jobs', p_queue);
    RETURN 'requested';
  END IF;
  UPDATE job SET state = 'active', lock_token = p_token, locked_until_ms = p_now + 30000, process_at_ms = NULL
   WHERE queue = p_queue AND id = p_id;
  DELETE FROM task_backend_workflow WHERE queue = p_queue AND id = p_id;
  PERFORM move_to_failed(p_queue, p_id, p_token, p_reason, p_stacktrace, p_now, false, p_keep_age, NULL);
  PERFORM task_backend_tell(p_parent_queue, p_parent_id, p_parent_n, p_parent_entry, p_now);
  IF v_state = 'active' THEN
    PERFORM pg_notify('task_backend', current_schema() || '.' || p_run);
  END IF;
  RETURN 'requested';
END;
$$;

-- Settles a job: as completed with a value, as failed without one.
CREATE OR REPLACE FUNCTION task_backend_settle(
  p_queue text, p_id text, p_token text, p_value jsonb, p_reason text, p_stacktrace jsonb, p_now bigint, p_keep_age bigint
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF p_value IS NOT NULL THEN
    PERFORM move_to_completed(p_queue, p_id, p_token, p_value, p_now, false, p_keep_age, NULL);
  ELSE
    PERFORM move_to_failed(p_queue, p_id, p_token, p_reason, p_stacktrace, p_now, false, p_keep_age, NULL);
  END IF;
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_finish_step(
  p_queue text, p_id text, p_token text, p_value jsonb, p_reason text, p_stacktrace jsonb, p_now bigint, p_keep_age bigint,
  p_parent_queue text, p_parent_id text, p_parent_n integer, p_parent_entry text,
  p_fetch boolean, p_lock_ms bigint, p_worker text, p_limiter_max integer, p_limiter_duration bigint
) RETURNS SETOF job
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM task_backend_settle(p_queue, p_id, p_token, p_value, p_reason, p_stacktrace, p_now, p_keep_age);
  PERFORM task_backend_tell(p_parent_queue, p_parent_id, p_parent_n, p_parent_entry, p_now);
  IF p_fetch THEN
    RETURN QUERY SELECT * FROM move_to_active(p_queue, p_token, p_lock_ms, p_now, p_worker, p_limiter_max, p_limiter_duration);
  END IF;
END;
$$;

-- Returns null when a signal has come after entry p_seen, else the run's unsettled children. The run settles if it has none, or with
-- force.
CREATE OR REPLACE FUNCTION task_backend_finish_workflow(
  p_queue text, p_id text, p_token text, p_value jsonb, p_reason text, p_stacktrace jsonb, p_now bigint, p_keep_age bigint,
  p_parent_queue text, p_parent_id text, p_parent_n integer, p_parent_entry text, p_force boolean, p_ending text,
  p_seen integer
) RETURNS text[]
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  v_children text[];
  v_ending text;
BEGIN
  SELECT ending INTO v_ending FROM task_backend_workflow WHERE queue = p_queue AND id = p_id FOR UPDATE;
  PERFORM task_backend_hold(p_queue, p_id, p_token);
  IF NOT p_force THEN
    IF v_ending IS NULL AND EXISTS (
      SELECT 1 FROM task_backend_journal
       WHERE queue = p_queue AND id = p_id AND position >= p_seen AND starts_with(entry, '${SIGNAL_BEGINS}')
    ) THEN
      UPDATE task_backend_workflow SET closing = true WHERE queue = p_queue AND id = p_id;
      RETURN NULL;
    END IF;
    v_children := array(SELECT run FROM task_backend_child WHERE queue = p_queue AND id = p_id ORDER BY n);
    IF cardinality(v_children) > 0 THEN
      UPDATE task_backend_workflow SET ending = p_ending WHERE queue = p_queue AND id = p_id;
      RETURN v_children;
    END IF;
  END IF;
  DELETE FROM task_backend_workflow WHERE queue = p_queue AND id = p_id;
  PERFORM task_backend_settle(p_queue, p_id, p_token, p_value, p_reason, p_stacktrace, p_now, p_keep_age);
  PERFORM task_backend_tell(p_parent_queue, p_parent_id, p_parent_n, p_parent_entry, p_now);
  RETURN ARRAY[]::text[];
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_load(p_queue text, p_id text, p_token text, p_now bigint, p_from integer, p_version text)
RETURNS TABLE (o_entries text[], o_seen integer, o_commands integer, o_retries integer, o_started_at bigint, o_version text, o_outbox text, o_ending text)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  BEGIN
    INSERT INTO task_backend_workflow AS w (queue, id, started_at, version) VALUES (p_queue, p_id, p_now, p_version)
    ON CONFLICT (queue, id) DO UPDATE
      SET started_at = COALESCE(w.started_at, p_now), version = COALESCE(w.version, p_version), parked = false;
  EXCEPTION WHEN foreign_key_violation THEN
    NULL;
  END;
  PERFORM task_backend_hold(p_queue, p_id, p_token);
  PERFORM task_backend_fire(p_queue, p_id, p_now);
  RETURN QUERY
    SELECT array(SELECT j.entry FROM task_backend_journal j WHERE j.queue = p_queue AND j.id = p_id AND j.position >= p_from ORDER BY j.position),
           w.seen, w.commands, w.retries, w.started_at, w.version, w.outbox, w.ending
      FROM task_backend_workflow w WHERE w.queue = p_queue AND w.id = p_id;
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_commit(p_queue text, p_id text, p_token text, p_tick jsonb, p_park boolean, p_length integer, p_far bigint)
RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  v_entries integer;
  v_until bigint;
BEGIN
  SELECT entries INTO v_entries FROM task_backend_workflow WHERE queue = p_queue AND id = p_id FOR UPDATE;
  PERFORM task_backend_hold(p_queue, p_id, p_token);
  IF p_tick IS NOT NULL THEN
    INSERT INTO task_backend_journal
      SELECT p_queue, p_id, v_entries + ord - 1, entry FROM jsonb_array_elements_text(p_tick->'entries') WITH ORDINALITY AS e(entry, ord);
    v_entries := v_entries + jsonb_array_length(p_tick->'entries');
    INSERT INTO task_backend_timer
      SELECT p_queue, p_id, (timer->>0)::integer, ceil((timer->>1)::numeric)::bigint FROM jsonb_array_elements(p_tick->'timers') AS t(timer);
    DELETE FROM task_backend_timer
     WHERE queue = p_queue AND id = p_id AND n IN (SELECT value::integer FROM jsonb_array_elements_text(p_tick->'cancelledTimers'));
    INSERT INTO task_backend_child
      SELECT p_queue, p_id, (child->>0)::integer, child->>1 FROM jsonb_array_elements(p_tick->'children') AS c(child);
    UPDATE task_backend_workflow
       SET entries = v_entries, seen = (p_tick->>'seen')::integer, commands = (p_tick->>'commands')::integer,
           stalls = (p_tick->>'stalls')::integer, retries = 0, error = NULL, closing = false, outbox = COALESCE(p_tick->>'outbox', outbox)
     WHERE queue = p_queue AND id = p_id;
  END IF;
  IF NOT p_park THEN
    RETURN 'done';
  END IF;
  UPDATE task_backend_workflow SET outbox = NULL WHERE queue = p_queue AND id = p_id AND outbox IS NOT NULL;
  IF v_entries > p_length THEN
    RETURN 'more';
  END IF;
  SELECT min(due_at) INTO v_until FROM task_backend_timer WHERE queue = p_queue AND id = p_id;
  UPDATE task_backend_workflow SET parked = true WHERE queue = p_queue AND id = p_id;
  PERFORM move_to_delayed(p_queue, p_id, p_token, LEAST(COALESCE(v_until, p_far), p_far), 0, true, NULL, NULL);
  RETURN 'done';
END;
$$;

-- Gives the entries after those that a tick has acted on a new order.
CREATE OR REPLACE FUNCTION task_backend_reorder(p_queue text, p_id text, p_token text, p_entries text[]) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  v_seen integer;
BEGIN
  SELECT seen INTO v_seen FROM task_backend_workflow WHERE queue = p_queue AND id = p_id FOR UPDATE;
  PERFORM task_backend_hold(p_queue, p_id, p_token);
  UPDATE task_backend_journal j SET entry = e.entry FROM unnest(p_entries) WITH ORDINALITY AS e(entry, ord)
   WHERE j.queue = p_queue AND j.id = p_id AND j.position = v_seen + e.ord - 1;
  RETURN 'done';
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_postpone(p_queue text, p_id text, p_token text, p_until bigint, p_delay bigint, p_error text, p_stalls integer)
RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE task_backend_workflow SET closing = false WHERE queue = p_queue AND id = p_id;
  PERFORM task_backend_hold(p_queue, p_id, p_token);
  IF p_error IS NOT NULL THEN
    UPDATE task_backend_workflow SET retries = retries + 1, error = p_error, stalls = p_stalls WHERE queue = p_queue AND id = p_id;
  END IF;
  PERFORM move_to_delayed(p_queue, p_id, p_token, p_until, p_delay, true, NULL, NULL);
  RETURN 'done';
END;
$$;

CREATE OR REPLACE FUNCTION task_backend_version() RETURNS integer LANGUAGE sql AS 'SELECT ${FUNCTIONS_VERSION}';
`;
