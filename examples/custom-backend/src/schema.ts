/*
 * A run is a row of `runs`. `state` drives the scheduling: `ready`, `delayed`, `active`, `parked` (a workflow that waits) or
 * `settled`; `status` is shown to users. Payloads are JSON as text, because `jsonb` sorts keys and refuses U+0000.
 * Times are milliseconds of the server's clock. A trigger notifies all processes of changes.
 */
export function ddl(schema: string): string {
  return `
    CREATE SCHEMA IF NOT EXISTS ${schema};
    SET LOCAL search_path = ${schema};
    CREATE TABLE workers (id uuid PRIMARY KEY, lease_until float8 NOT NULL);
    CREATE TABLE runs (
      seq bigint GENERATED ALWAYS AS IDENTITY,
      id text COLLATE "C" PRIMARY KEY,
      parent text,
      parent_n int,
      kind text NOT NULL,
      name text NOT NULL,
      version text,
      definition text NOT NULL,
      known bool NOT NULL,
      queue text NOT NULL,
      priority int NOT NULL,
      idempotency_key text,
      headers text NOT NULL,
      input text NOT NULL,
      state text NOT NULL,
      status text NOT NULL,
      run_at float8,
      attempts int NOT NULL DEFAULT 0,
      owner uuid,
      cancel_requested bool NOT NULL DEFAULT false,
      submitted_at float8 NOT NULL,
      started_at float8,
      finished_at float8,
      progress text,
      output text,
      error text,
      entries int NOT NULL DEFAULT 0,
      seen int NOT NULL DEFAULT 0,
      commands int NOT NULL DEFAULT 0,
      retries int NOT NULL DEFAULT 0,
      lost_ticks int NOT NULL DEFAULT 0
    );
    CREATE INDEX ON runs (queue, kind, priority DESC, seq) WHERE state = 'ready';
    CREATE INDEX ON runs (run_at) WHERE state = 'delayed';
    CREATE INDEX ON runs (owner) WHERE state = 'active';
    CREATE INDEX ON runs (parent) WHERE state <> 'settled';
    CREATE INDEX ON runs (finished_at) WHERE state = 'settled';
    CREATE UNIQUE INDEX ON runs (name, queue, idempotency_key);
    CREATE TABLE journal (run text REFERENCES runs ON DELETE CASCADE, position int, entry text NOT NULL, PRIMARY KEY (run, position));
    CREATE TABLE timers (run text REFERENCES runs ON DELETE CASCADE, n int, due_at float8 NOT NULL, PRIMARY KEY (run, n));
    CREATE INDEX ON timers (due_at);
    CREATE TABLE signal_ids (run text REFERENCES runs ON DELETE CASCADE, dedupe_id text, PRIMARY KEY (run, dedupe_id));
    CREATE FUNCTION now_ms() RETURNS float8 LANGUAGE sql AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::float8 $$;
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM pg_notify(TG_TABLE_SCHEMA, CASE
          WHEN NEW.state = 'settled' THEN 'settled ' || NEW.id
          WHEN NEW.cancel_requested AND NEW.state = 'active' THEN 'cancel ' || NEW.id
          ELSE 'work' END);
        RETURN NULL;
      END $$;
    CREATE TRIGGER tell_new AFTER INSERT ON runs FOR EACH ROW EXECUTE FUNCTION tell();
    CREATE TRIGGER tell_changed AFTER UPDATE OF state, cancel_requested ON runs FOR EACH ROW
      WHEN (NEW.state <> OLD.state AND NEW.state NOT IN ('active', 'parked') OR NEW.cancel_requested <> OLD.cancel_requested)
      EXECUTE FUNCTION tell();
  `;
}
