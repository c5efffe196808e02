import { openConnection } from "../packages/sqlite/src/driver.ts";

/** The least SQL that a task queue needs, through the same driver: it measures the cost of the engine itself. */
export interface BareQueue {
  /** Inserts `batch` jobs per transaction. */
  submit(count: number, batch: number): void;
  /** Claims, runs and settles `batch` jobs at a time. Returns the number of jobs. */
  process(batch: number): number;
  close(): void;
}

export function bareQueue(file: string, synchronous: string): BareQueue {
  const db = openConnection(file, 0);
  db.exec("PRAGMA journal_mode = WAL");
  db.exec(`PRAGMA synchronous = ${synchronous}`);
  db.exec(`
    CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, queue TEXT, name TEXT, state INTEGER, owner TEXT, attempts INTEGER, submitted_at INTEGER, finished_at INTEGER, input TEXT, output TEXT);
    CREATE INDEX ready ON jobs (queue, seq) WHERE state = 0;
    CREATE INDEX active ON jobs (owner) WHERE state = 1;
  `);
  const insert = db.prepare(
    "INSERT INTO jobs (id, queue, name, state, attempts, submitted_at, input) VALUES (?, 'bench', 'add', 0, 0, ?, ?)",
  );
  const claim = db.prepare(
    "UPDATE jobs SET state = 1, owner = 'me', attempts = attempts + 1 WHERE seq IN (SELECT seq FROM jobs WHERE state = 0 AND queue = 'bench' ORDER BY seq LIMIT ? + 0) RETURNING seq, input",
  );
  const settle = db.prepare("UPDATE jobs SET state = 2, owner = NULL, output = ?, finished_at = ? WHERE seq = ? AND owner = 'me'");
  const begin = db.prepare("BEGIN IMMEDIATE");
  const commit = db.prepare("COMMIT");
  let ids = 0;
  let held: { seq: number; input: string }[] = [];
  return {
    submit: (count, batch) => {
      for (let done = 0; done < count;) {
        begin.run();
        for (let index = 0; index < batch && done < count; index++, done++)
          insert.run(`job-${ids++}`, Date.now(), JSON.stringify({ a: done, b: 1 }));
        commit.run();
      }
    },
    process: (batch) => {
      let processed = 0;
      do {
        begin.run();
        for (const { seq, input } of held) {
          const { a, b } = JSON.parse(input) as { a: number; b: number };
          settle.run(JSON.stringify(a + b), Date.now(), seq);
        }
        processed += held.length;
        held = claim.all(batch) as typeof held;
        commit.run();
      } while (held.length > 0);
      return processed;
    },
    close: () => db.close(),
  };
}
