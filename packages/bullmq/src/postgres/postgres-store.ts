import { randomUUID } from "node:crypto";
import type { JournalEntry } from "@task-backend/core/adapter";
import {
  PostgresQueueBackend,
  Queue,
  Worker,
  type BackendFactory,
  type ConnectionOptions,
  type IQueueBackend,
  type PostgresConnection,
} from "bullmq";
import { readEntry } from "../envelope.ts";
import { isWorkflowQueue, toRef, toRunId, type JobRef } from "../ids.ts";
import { failureFields, MAX_DUE_MS, settledEntry, type FailureRecord, type JobData, type NewJob, type StoredJob } from "../mapping.ts";
import type { BullmqSettings, PostgresTarget } from "../options.ts";
import {
  keepFor,
  toJobJson,
  type Claim,
  type Ended,
  type Ending,
  type FinishOptions,
  type Lane,
  type NextJob,
  type SignalAnswer,
  type OnFinished,
  type Store,
  type TickRecord,
  type WorkflowState,
} from "../store.ts";
import { inBulks } from "./bulks.ts";
import { openConnection, prepare, whereOf } from "./connection.ts";
import { Listener } from "./listener.ts";
import { PostgresLane } from "./postgres-lane.ts";
import { claimedJob, JOB_COLUMNS, JOBS, toStoredJob, type Row } from "./rows.ts";

/** The store on PostgreSQL: our functions call BullMQ's, and our tables are beside its own. One pool and listener serve all queues. */
export class PostgresStore implements Store {
  readonly where: string;
  readonly #settings: BullmqSettings;
  readonly #target: PostgresTarget;
  readonly #connection: PostgresConnection;
  readonly #listener: Listener;
  readonly #queues = new Map<string, Queue>();
  readonly #watched = new Map<string, OnFinished>();
  readonly #adding: Addition[] = [];
  #healthy = true;
  /** The schema's name on the server. */
  #schema = "";

  constructor(settings: BullmqSettings, target: PostgresTarget) {
    this.#settings = settings;
    this.#target = target;
    this.#connection = openConnection(target);
    this.#connection.on("error", () => {});
    this.#listener = new Listener(this.#connection);
    this.where = `PostgreSQL at ${whereOf(target)}`;
  }

  async connect(signal: AbortSignal): Promise<{ version: string }> {
    const { version, schema } = await prepare(this.#connection, this.#target, signal);
    this.#schema = schema;
    return { version: `bullmq 6.7.0 on postgresql ${version}` };
  }

  async close(): Promise<void> {
    this.#listener.close();
    await this.#connection.close();
  }

  healthy(): boolean {
    return this.#healthy;
  }

  queue(name: string): Queue {
    let queue = this.#queues.get(name);
    if (!queue) {
      queue = new Queue(name, { ...this.#settings.queue, connection: PLACEHOLDER }, this.#factory) as unknown as Queue;
      queue.on("error", () => {});
      this.#queues.set(name, queue);
    }
    return queue;
  }

  /** BullMQ takes its store as a separate argument; it would ignore one among the options and use Redis. */
  readonly #factory: BackendFactory = (name, opts) => new PostgresQueueBackend(this.#connection, name, opts as never, false);

  /** Adds jobs. All jobs of one turn of the event loop share a statement, and so a commit. */
  add(jobs: readonly NewJob[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#adding.length === 0) setImmediate(() => void this.#addAll(this.#adding.splice(0)));
      this.#adding.push({ jobs, resolve, reject });
    });
  }

  async #addAll(additions: readonly Addition[]): Promise<void> {
    const byQueue = new Map<string, NewJob[]>();
    for (const job of additions.flatMap(({ jobs }) => jobs)) {
      const together = byQueue.get(job.ref.queue);
      if (together) together.push(job);
      else byQueue.set(job.ref.queue, [job]);
    }
    try {
      await Promise.all([...byQueue].map(([queue, jobs]) => this.#addToQueue(queue, jobs)));
      for (const { resolve } of additions) resolve();
    } catch (error) {
      const [only] = additions;
      if (additions.length === 1) return only?.reject(error);
      // Only one of them may be at fault, so each is added separately. Adding twice is harmless, because the ids are the same.
      for (const addition of additions) await this.#addAll([addition]);
    }
  }

  async #addToQueue(queue: string, jobs: readonly NewJob[]): Promise<void> {
    const { backend } = this.queue(queue) as unknown as { readonly backend: IQueueBackend };
    const added = jobs.map((job) => ({ job: toJobJson(job), jobId: job.ref.id }));
    const [only] = added;
    // The bulks are added one after another: on parallel connections of the pool they would lose their order.
    if (only && added.length === 1) await backend.addJob(only.job, only.jobId);
    else for (const bulk of inBulks(added)) await backend.addJobs(bulk);
  }

  async get({ queue, id }: JobRef): Promise<StoredJob | undefined> {
    const [row] = await this.#query(`SELECT ${JOB_COLUMNS} ${JOBS} WHERE j.queue = $1 AND j.id = $2`, [queue, id]);
    return row && toStoredJob(row);
  }

  async ends(refs: readonly JobRef[], removed: boolean): Promise<readonly Ended[]> {
    const asked = [refs.map(({ queue }) => queue), refs.map(({ id }) => id)];
    const rows = await this.#query(
      `SELECT ${JOB_COLUMNS} ${JOBS} JOIN unnest($1::text[], $2::text[]) AS r(queue, id) ON r.queue = j.queue AND r.id = j.id
       WHERE j.state IN ('completed', 'failed')`,
      asked,
    );
    const ends = rows.map((row): Ended => {
      const job = toStoredJob(row);
      return { ref: job.ref, job };
    });
    if (!removed) return ends;
    // This is a second query instead of one join for both: at each event, few of the many jobs have finished.
    const gone = await this.#query(
      `SELECT r.queue, r.id FROM unnest($1::text[], $2::text[]) AS r(queue, id)
       WHERE NOT EXISTS (SELECT 1 FROM job j WHERE j.queue = r.queue AND j.id = r.id)`,
      asked,
    );
    return [...ends, ...gone.map(({ queue, id }): Ended => ({ ref: { queue: queue as string, id: id as string }, job: undefined }))];
  }

  async watch(queue: string, onFinished: OnFinished): Promise<void> {
    if (this.#watched.size === 0) {
      await this.#listener.on("bullmq_events", (payload) => {
        for (const [name, callback] of this.#watched) if (payload === undefined || payload === name) callback(name, undefined);
      });
    }
    this.#watched.set(queue, onFinished);
  }

  onCancel(listener: (runId: string) => void): Promise<() => void> {
    // Other schemas of the database use the same channel.
    const ours = `${this.#schema}.`;
    return this.#listener.on("task_backend", (payload) => payload?.startsWith(ours) && listener(payload.slice(ours.length)));
  }

  async cancel(job: StoredJob, failure: FailureRecord): Promise<"requested" | "settled" | "unknown"> {
    const { ref, data } = job;
    const fields = failureFields(failure);
    const now = Date.now();
    return (await this.#value("SELECT task_backend_cancel($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $12, $13) AS value", [
      ref.queue,
      ref.id,
      randomUUID(),
      now,
      JSON.stringify({ type: "cancel", atMs: now }),
      fields.failedReason,
      fields.stacktrace,
      keepFor(this.#settings.retentionMs).age,
      toRunId(ref),
      ...parentOf(data, settledEntry(data, failure)),
    ])) as "requested" | "settled" | "unknown";
  }

  async signal(ref: JobRef, entry: string, dedupeId: string | undefined, patient: boolean): Promise<SignalAnswer> {
    return (await this.#value("SELECT task_backend_send($1, $2, $3, $4, $5, $6, $7) AS value", [
      ref.queue,
      ref.id,
      entry,
      dedupeId ?? null,
      isWorkflowQueue(ref.queue),
      Date.now(),
      patient,
    ])) as SignalAnswer;
  }

  lane(queue: string, { workerName }: { readonly workerName: string }): Lane {
    const worker = new Worker<unknown, unknown, string, IQueueBackend>(
      queue,
      null,
      {
        ...this.#settings.worker,
        removeOnComplete: keepFor(this.#settings.retentionMs),
        removeOnFail: keepFor(this.#settings.retentionMs),
        name: workerName,
        connection: PLACEHOLDER,
        autorun: false,
        lockDuration: this.#settings.lockMs,
        stalledInterval: this.#settings.stalledIntervalMs,
        // The largest integer of PostgreSQL.
        maxStalledCount: 2 ** 31 - 1,
      },
      this.#factory,
    );
    return new PostgresLane(worker, workerName, this.#listener);
  }

  async progress({ ref, token }: Claim, value: string): Promise<void> {
    await this.#query("UPDATE job SET progress = $4::jsonb WHERE queue = $1 AND id = $2 AND lock_token = $3 AND state = 'active'", [
      ref.queue,
      ref.id,
      token,
      value,
    ]);
  }

  async finishStep(lane: Lane, claim: Claim, ending: Ending, fetchNext: boolean): Promise<NextJob | "lost"> {
    const { limiter } = this.#settings.worker;
    const rows = await this.#held(
      this.#query(
        "SELECT * FROM task_backend_finish_step($1, $2, $3, $4::jsonb, $5, $6::jsonb, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        [
          ...this.#ending(claim, ending),
          fetchNext,
          this.#settings.lockMs,
          lane.workerName,
          limiter?.max ?? null,
          limiter?.duration ?? null,
        ],
      ),
    );
    if (rows === "lost") return "lost";
    const [row] = rows;
    return row && [claimedJob(row), row["id"]];
  }

  async finishWorkflow(
    _lane: Lane,
    claim: Claim,
    ending: Ending,
    { force = false, seen }: FinishOptions,
  ): Promise<"done" | "more" | "lost" | readonly string[]> {
    const children = await this.#held(
      this.#value(
        "SELECT task_backend_finish_workflow($1, $2, $3, $4::jsonb, $5, $6::jsonb, $7, $8, $9, $10, $11, $12, $13, $14, $15) AS value",
        [...this.#ending(claim, ending), force, JSON.stringify(ending), seen ?? null],
      ),
    );
    if (children === "lost") return "lost";
    if (children === null) return "more";
    return (children as string[]).length === 0 ? "done" : (children as string[]);
  }

  #ending({ ref, token, data }: Claim, ending: Ending): unknown[] {
    const completed = "output" in ending;
    const fields = completed ? undefined : failureFields(ending);
    return [
      ref.queue,
      ref.id,
      token,
      completed ? ending.output : null,
      fields?.failedReason ?? null,
      fields?.stacktrace ?? null,
      Date.now(),
      keepFor(this.#settings.retentionMs).age,
      ...parentOf(data, settledEntry(data, ending)),
    ];
  }

  async load({ ref, token }: Claim, from: number, version: string | undefined): Promise<WorkflowState | "lost"> {
    const rows = await this.#held(
      this.#query("SELECT * FROM task_backend_load($1, $2, $3, $4, $5, $6)", [ref.queue, ref.id, token, Date.now(), from, version ?? null]),
    );
    const row = rows === "lost" ? undefined : rows[0];
    if (!row) return "lost";
    return {
      entries: (row["o_entries"] as string[]).map((entry) => readEntry(entry, toRunId(ref))),
      seen: row["o_seen"] as number,
      commands: row["o_commands"] as number,
      retries: row["o_retries"] as number,
      startedAtMs: Number(row["o_started_at"]),
      ...(row["o_version"] !== null && { version: row["o_version"] as string }),
      ...(row["o_outbox"] !== null && { outbox: row["o_outbox"] as string }),
      ...(row["o_ending"] !== null && { ending: row["o_ending"] as string }),
    };
  }

  record(claim: Claim, tick: TickRecord): Promise<"done" | "lost"> {
    return this.#commit(claim, tick, false, 0) as Promise<"done" | "lost">;
  }

  park(claim: Claim, length: number, tick: TickRecord | undefined): Promise<"done" | "more" | "lost"> {
    return this.#commit(claim, tick, true, length) as Promise<"done" | "more" | "lost">;
  }

  #commit({ ref, token }: Claim, tick: TickRecord | undefined, park: boolean, length: number): Promise<unknown> {
    return this.#held(
      this.#value("SELECT task_backend_commit($1, $2, $3, $4::jsonb, $5, $6, $7) AS value", [
        ref.queue,
        ref.id,
        token,
        tick ? JSON.stringify(tick) : null,
        park,
        length,
        MAX_DUE_MS,
      ]),
    );
  }

  postpone({ ref, token, json }: Claim, delayMs: number, error: string | undefined): Promise<"done" | "lost"> {
    const delay = Math.ceil(delayMs);
    return this.#held(
      this.#value("SELECT task_backend_postpone($1, $2, $3, $4, $5, $6, $7) AS value", [
        ref.queue,
        ref.id,
        token,
        Date.now() + delay,
        delay,
        error ?? null,
        json.stalledCounter,
      ]),
    ) as Promise<"done" | "lost">;
  }

  async child({ ref }: Claim, n: number): Promise<string | undefined> {
    const [row] = await this.#query("SELECT run FROM task_backend_child WHERE queue = $1 AND id = $2 AND n = $3", [ref.queue, ref.id, n]);
    return row?.["run"] as string | undefined;
  }

  async wake({ queue, id }: JobRef): Promise<void> {
    await this.#query("SELECT task_backend_wake($1, $2)", [queue, id]);
  }

  reorder({ ref, token }: Claim, entries: readonly JournalEntry[]): Promise<"done" | "lost"> {
    const texts = entries.map((entry) => JSON.stringify(entry));
    return this.#held(this.#value("SELECT task_backend_reorder($1, $2, $3, $4) AS value", [ref.queue, ref.id, token, texts])) as Promise<
      "done" | "lost"
    >;
  }

  async markTask({ queue, id }: JobRef): Promise<void> {
    await this.#query("SELECT task_backend_mark_task($1, $2)", [queue, id]);
  }

  // ---- queries ----

  async #query(text: string, values?: unknown[]): Promise<Row[]> {
    try {
      const { rows } = await this.#connection.pool.query(text, values);
      this.#healthy = true;
      return rows as Row[];
    } catch (error) {
      // An error code of five characters is an answer of the server, so the server is up.
      this.#healthy = /^[0-9A-Z]{5}$/.test((error as { code?: string }).code ?? "");
      throw error;
    }
  }

  async #value(text: string, values: unknown[]): Promise<unknown> {
    return (await this.#query(text, values))[0]?.["value"];
  }

  /** Turns BullMQ's own error, which the functions raise when the token no longer holds the job, into "lost". */
  async #held<T>(work: Promise<T>): Promise<T | "lost"> {
    try {
      return await work;
    } catch (error) {
      if ((error as { code?: string }).code === "BM001") return "lost";
      throw error;
    }
  }
}

interface Addition {
  readonly jobs: readonly NewJob[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** BullMQ requires connection options even if its backend already has a connection. */
const PLACEHOLDER = {} as ConnectionOptions;

function parentOf({ parent }: JobData, entry: string | undefined): unknown[] {
  const ref = parent && toRef(parent[0]);
  return [ref?.queue ?? null, ref?.id ?? null, parent?.[1] ?? null, entry ?? null];
}
