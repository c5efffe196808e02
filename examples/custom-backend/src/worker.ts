import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import {
  createDrive,
  definitionKey,
  BackendUnavailableError,
  corruptRecord,
  Interruption,
  Intervals,
  PRIORITIES,
  refusedRecord,
  Shutdown,
  storeOutcome,
  type AbortReason,
  type Decision,
  type Json,
  type TickResult,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import type { Database, News, Sql } from "./database.ts";
import { PostgresJournal, type OwnedRun } from "./journal.ts";
import type { Settings } from "./options.ts";
import { cancelled, envelopeOf, lockOwned, promoteDue, recover, settle, wake, type Row } from "./runs.ts";

/** The number of workflow runs in one worker at a time: they wait for the database, not for work. */
const TICKS = 20;
/** How often the worker looks for runs without news, which may get lost with a connection. */
const LOOKS_MS = 1_000;
/** The shortest pause before the next look: a due run may have been locked. */
const SOON_MS = 5;
const TRIES_AGAIN_MS = 500;
const PROGRESS_MS = 50;
const PRUNE = "DELETE FROM runs WHERE state = 'settled' AND finished_at < now_ms() - $1::float8";
/** Claims runs of one kind: a workflow submitted by name only waits among the tasks. */
const CLAIM = `
  UPDATE runs SET state = 'active', owner = $1, started_at = coalesce(started_at, now_ms()),
    attempts = CASE kind WHEN 'task' THEN attempts + 1 ELSE 1 END,
    status = CASE WHEN kind = 'workflow' AND status = 'retrying' THEN status ELSE 'running' END
  WHERE id IN (
    SELECT id FROM runs WHERE state = 'ready' AND kind = $2 AND queue = ANY($3) AND definition = ANY($4)
    ORDER BY priority DESC, seq LIMIT $5 FOR UPDATE SKIP LOCKED)
  AND EXISTS (SELECT FROM workers WHERE id = $1) RETURNING *`;

/** Releases the runs of a claim whose answer was lost: this worker owns them without knowing. Their starts are not charged. */
const DISOWN = `
  UPDATE runs SET state = 'ready', owner = NULL,
    attempts = CASE kind WHEN 'task' THEN attempts - 1 ELSE attempts END,
    status = CASE WHEN kind = 'workflow' THEN status WHEN attempts > 1 THEN 'retrying' ELSE 'pending' END
  WHERE owner = $1 AND state = 'active' AND id <> ALL($2)`;

/** Claims, runs and settles. Its row in `workers` is its lease, and its id there fences the writes of its runs. */
export class PostgresWorker implements WorkerHandle {
  readonly #database: Database;
  readonly #settings: Settings;
  readonly #request: WorkerRequest;
  readonly #runtime: WorkerRuntime;
  readonly #drive: (run: OwnedRun) => Promise<TickResult | "lost">;
  readonly #running = new Map<string, Interruption>();
  /** The tasks and workflow ticks that are under way, by run id. */
  readonly #held = new Map<string, Promise<void>>();
  readonly #intervals: Intervals;
  readonly #shutdown = new Shutdown({ abort: () => this.#abortAll("shutdown"), finish: () => this.#finish() });
  readonly #unsubscribe: () => void;
  #owner = randomUUID();
  /** The last renewal, by the monotonic clock. */
  #renewedAt = -Infinity;
  #asking: Promise<void> | undefined;
  #ticking = 0;
  #claiming: Promise<void> | undefined;
  #again = false;
  /** Until when a claim may have lost its answer, by the monotonic clock. */
  #doubtsUntil = 0;
  #due: NodeJS.Timeout | undefined;

  private constructor(database: Database, settings: Settings, request: WorkerRequest, runtime: WorkerRuntime) {
    this.#database = database;
    this.#settings = settings;
    this.#request = request;
    this.#runtime = runtime;
    this.#drive = createDrive(runtime, new PostgresJournal(database, settings.retentionMs));
    this.#intervals = new Intervals(runtime.log);
    this.#unsubscribe = database.onNews((news) => this.#hear(news));
    // A workflow's function went on outside of a tick; the next tick reports that.
    runtime.onStray((id) => {
      wake(database.sql, id).catch((error: unknown) => runtime.log.warn(`Workflow run ${id} was not woken: ${(error as Error).message}`));
    });
  }

  static async start(database: Database, settings: Settings, request: WorkerRequest, runtime: WorkerRuntime): Promise<PostgresWorker> {
    const worker = new PostgresWorker(database, settings, request, runtime);
    try {
      await database.sql("INSERT INTO workers (id, lease_until) VALUES ($1, now_ms() + $2::float8)", [worker.#owner, settings.leaseMs]);
    } catch (error) {
      worker.#unsubscribe();
      throw error;
    }
    worker.#renewedAt = performance.now();
    worker.#intervals.every(settings.leaseMs / 3, "renew the lease", () => worker.#beat());
    worker.#intervals.every(LOOKS_MS, "look for runs", () => worker.#pump());
    worker.#intervals.every(2 * LOOKS_MS, "look for unknown names", () => worker.#warn());
    worker.#intervals.every(Math.min(settings.retentionMs, 30_000), "forget old runs", () => database.sql(PRUNE, [settings.retentionMs]));
    worker.#pump();
    return worker;
  }

  healthy(): boolean {
    return !this.#shutdown.stopping && performance.now() - this.#renewedAt < this.#settings.leaseMs;
  }

  stop(graceMs: number): Promise<void> {
    return this.#shutdown.stop(graceMs);
  }

  async #finish(): Promise<void> {
    await this.#claiming;
    while (this.#held.size > 0) await Promise.all(this.#held.values());
    clearTimeout(this.#due);
    this.#intervals.stop();
    this.#unsubscribe();
    // The row is marked as ended, not deleted: if a run is left, other workers find it.
    await this.#database.sql("UPDATE workers SET lease_until = 0 WHERE id = $1", [this.#owner]).catch(() => {});
  }

  // ---- claiming ----

  #hear(news: News): void {
    if (news?.what === "cancel") this.#running.get(news.id)?.abort("cancel");
    if (news === undefined) void this.#lookForCancels().catch(() => {});
    if (news?.what !== "settled") this.#pump();
  }

  /** Claims runs for the free slots, and once more if it is called meanwhile. */
  #pump(): void {
    this.#again = true;
    this.#claiming ??= this.#claimAll().finally(() => {
      this.#claiming = undefined;
      if (this.#again && !this.#shutdown.stopping) this.#pump();
    });
  }

  async #claimAll(): Promise<void> {
    while (this.#again && !this.#shutdown.stopping) {
      this.#again = false;
      try {
        await this.#claim();
      } catch (error) {
        this.#runtime.log.error(`Runs cannot be claimed: ${(error as Error).message}`);
        this.#doubtsUntil = performance.now() + this.#settings.leaseMs;
        return;
      }
    }
  }

  async #claim(): Promise<void> {
    const owner = this.#owner;
    const { definitions } = this.#runtime;
    const names = definitions.map(({ name }) => name);
    const workflows = definitions.filter(({ kind }) => kind === "workflow").map(definitionKey);
    const claim = (kind: string, known: readonly string[], room: number): Promise<Row[]> =>
      room > 0 ? this.#database.sql<Row>(CLAIM, [owner, kind, this.#request.queues, known, room]) : Promise.resolve([]);
    if (performance.now() < this.#doubtsUntil) await this.#database.sql(DISOWN, [owner, [...this.#held.keys()]]);
    const dueMs = await this.#database.transaction(promoteDue);
    const claims = await Promise.all([
      claim("task", names, this.#request.concurrency - this.#running.size),
      claim("workflow", workflows, TICKS - this.#ticking),
    ]);
    clearTimeout(this.#due);
    if (dueMs !== undefined && !this.#shutdown.stopping)
      this.#due = setTimeout(() => this.#pump(), Math.min(Math.max(dueMs, SOON_MS), LOOKS_MS));
    if (owner !== this.#owner) return;
    for (const row of claims.flat().sort((a, b) => b.priority - a.priority || Number(a.seq) - Number(b.seq))) this.#begin(row, owner);
  }

  #begin(row: Row, owner: string): void {
    const workflow = this.#runtime.definitions.findLast(({ kind, name }) => kind === "workflow" && name === row.name);
    const work = row.kind === "workflow" || workflow ? this.#tick(row, workflow?.version, owner) : this.#attempt(row, owner);
    const held = work
      .catch((error: unknown) => this.#runtime.log.error(`Run ${row.id} was left: ${(error as Error).message}`))
      .finally(() => {
        if (this.#held.get(row.id) === held) this.#held.delete(row.id);
        this.#pump();
      });
    this.#held.set(row.id, held);
  }

  // ---- tasks ----

  async #attempt(row: Row, owner: string): Promise<void> {
    const { id, name, queue, attempts: attempt } = row;
    const interruption = new Interruption();
    this.#running.set(id, interruption);
    if (row.cancel_requested) interruption.abort("cancel");
    if (this.#shutdown.aborting) interruption.abort("shutdown");
    let progress: Json | undefined;
    let writing: NodeJS.Timeout | undefined;
    const write = (): void => {
      writing = undefined;
      const values = [id, owner, JSON.stringify(progress)];
      this.#database.sql("UPDATE runs SET progress = $3 WHERE id = $1 AND owner = $2", values).catch(() => {});
    };
    const envelope = envelopeOf(row);
    const decision: Decision =
      "corrupt" in envelope
        ? { do: "settle", status: "failed", error: corruptRecord(`Run "${id}" of "${name}"`, envelope.corrupt) }
        : await this.#runtime.execute({
            id,
            name,
            queue,
            attempt,
            input: envelope.input,
            headers: envelope.headers,
            ...(envelope.previousError && { previousError: envelope.previousError }),
            interruption,
            holds: () => (this.#isStale() ? this.#ask(owner) : owner === this.#owner),
            progress: (value) => {
              progress = value;
              writing ??= setTimeout(write, PROGRESS_MS);
            },
          });
    clearTimeout(writing);
    const last = progress === undefined ? row.progress : JSON.stringify(progress);
    await storeOutcome(decision, {
      what: `run "${id}" of "${name}"`,
      log: this.#runtime.log,
      write: (wanted) => this.#database.transaction((sql) => this.#apply(sql, row, owner, wanted, last)),
      isWanted: () => interruption.reason !== "lost",
      givesUp: () => this.#shutdown.stopping,
      refusal: (error) => (error instanceof BackendUnavailableError ? undefined : refusedRecord("what came of an attempt", error)),
    });
    if (this.#running.get(id) === interruption) this.#running.delete(id);
  }

  async #apply(sql: Sql, { id, name, attempts, error }: Row, owner: string, decision: Decision, progress: string | null): Promise<void> {
    const run = await lockOwned(sql, id, owner);
    if (!run) return;
    if (progress !== null) await sql("UPDATE runs SET progress = $2 WHERE id = $1", [id, progress]);
    if (run.cancel_requested)
      return settle(sql, run, decision.do === "settle" && decision.status === "cancelled" ? decision : cancelled(name));
    if (decision.do === "complete") return settle(sql, run, { status: "completed", output: decision.output });
    if (decision.do === "settle") return settle(sql, run, decision, decision.attempts);
    const failed = decision.do === "retry";
    await sql(
      `UPDATE runs SET state = CASE WHEN $2::float8 > 0 THEN 'delayed' ELSE 'ready' END, run_at = now_ms() + $2::float8, owner = NULL,
         status = $3, attempts = $4, error = $5, started_at = CASE WHEN $4 = 0 THEN NULL ELSE started_at END WHERE id = $1`,
      [
        id,
        decision.delayMs,
        failed || error !== null ? "retrying" : "pending",
        failed ? attempts : attempts - 1,
        failed ? JSON.stringify(decision.error) : error,
      ],
    );
  }

  // ---- workflows ----

  async #tick(row: Row, known: string | undefined, owner: string): Promise<void> {
    const { id, name, queue, started_at, lost_ticks } = row;
    // A workflow submitted by name only gets the version of the worker that claims it.
    const version = row.kind === "workflow" ? row.version : (known ?? null);
    this.#ticking++;
    try {
      if (row.kind === "task")
        await this.#database.sql(
          "UPDATE runs SET kind = 'workflow', version = $3, definition = $4, attempts = 1 WHERE id = $1 AND owner = $2",
          [id, owner, version, `${name}@${version}`],
        );
      const envelope = envelopeOf(row);
      if ("corrupt" in envelope) return await this.#settleCorrupt(row, owner, envelope.corrupt);
      const { input, headers } = envelope;
      const run = {
        id,
        name,
        queue,
        input,
        headers,
        priority: PRIORITIES[row.priority] ?? "normal",
        startedAtMs: started_at ?? 0,
        lostTicks: lost_ticks,
      };
      await this.#drive({ ...run, owner, ...(version !== null && { version }) });
    } catch (error) {
      this.#runtime.evict(id);
      if (error instanceof SyntaxError) return await this.#settleCorrupt(row, owner, error);
      this.#runtime.log.error(`Workflow run ${id} cannot be stored yet: ${(error as Error).message}`);
      await this.#release(id, owner);
    } finally {
      this.#ticking--;
    }
  }

  /** Settles a run whose data cannot be read, so that it is not claimed for ever. */
  async #settleCorrupt(row: Row, owner: string, cause: unknown): Promise<void> {
    await this.#database.transaction(async (sql) => {
      const run = await lockOwned(sql, row.id, owner);
      if (run) await settle(sql, run, { status: "failed", error: corruptRecord(`Run "${row.id}" of "${row.name}"`, cause) });
    });
  }

  async #release(id: string, owner: string): Promise<void> {
    while (owner === this.#owner) {
      try {
        await this.#database.sql(
          "UPDATE runs SET state = 'delayed', run_at = now_ms() + $3::float8, owner = NULL WHERE id = $1 AND owner = $2 AND state = 'active'",
          [id, owner, TRIES_AGAIN_MS],
        );
        return;
      } catch (error) {
        this.#runtime.log.error(`Run ${id} cannot be released yet: ${(error as Error).message}`);
        if (this.#shutdown.stopping) return;
        await pause(TRIES_AGAIN_MS);
      }
    }
  }

  // ---- the lease ----

  /** Whether the worker may have lost its runs, because its process was frozen. */
  #isStale(): boolean {
    return performance.now() - this.#renewedAt > this.#settings.leaseMs / 2;
  }

  async #ask(owner: string): Promise<boolean> {
    await (this.#asking ??= this.#beat()
      .catch(() => {})
      .finally(() => (this.#asking = undefined)));
    // The answer may have come late, too.
    return owner === this.#owner && !this.#isStale();
  }

  /** Renews the lease, and takes over the runs of lost workers. */
  async #beat(): Promise<void> {
    const at = performance.now();
    const owner = this.#owner;
    const { leaseMs } = this.#settings;
    const renewed = await this.#database.urgent(
      "UPDATE workers SET lease_until = now_ms() + $2::float8 WHERE id = $1 AND lease_until >= now_ms() RETURNING id",
      [owner, leaseMs],
    );
    if (owner !== this.#owner) return;
    if (renewed.length === 0) {
      this.#runtime.log.warn("This worker was away for longer than its lease; its runs were given to others.");
      this.#abortAll("lost");
      this.#owner = randomUUID();
      await this.#database.sql("INSERT INTO workers (id, lease_until) VALUES ($1, now_ms() + $2::float8)", [this.#owner, leaseMs]);
    }
    this.#renewedAt = at;
    const recovered = await this.#database.transaction(recover);
    if (recovered > 0) this.#runtime.log.warn(`Took ${recovered} runs over from a worker that was lost.`);
    await this.#lookForCancels();
    this.#pump();
  }

  async #lookForCancels(): Promise<void> {
    if (this.#running.size === 0) return;
    const found = await this.#database.sql<{ id: string }>("SELECT id FROM runs WHERE owner = $1 AND cancel_requested", [this.#owner]);
    for (const { id } of found) this.#running.get(id)?.abort("cancel");
  }

  #abortAll(reason: AbortReason): void {
    for (const interruption of this.#running.values()) interruption.abort(reason);
  }

  /** Warns of runs with unknown names, because another worker may know them. */
  async #warn(): Promise<void> {
    const known = this.#runtime.definitions.flatMap((definition) => [definition.name, definitionKey(definition)]);
    const unknown = await this.#database.sql<{ definition: string; queue: string }>(
      "SELECT DISTINCT definition, queue FROM runs WHERE state = 'ready' AND queue = ANY($1) AND definition <> ALL($2) LIMIT 10",
      [this.#request.queues, known],
    );
    for (const { definition, queue } of unknown)
      this.#runtime.log.warn(`Runs of "${definition}" wait on queue "${queue}", and this worker does not know it.`);
  }
}
