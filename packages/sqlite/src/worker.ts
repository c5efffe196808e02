import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import {
  BackendClosedError,
  createDrive,
  Intervals,
  Shutdown,
  definitionKey,
  MAX_TIMER_MS,
  type TickResult,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { Attempts, TROUBLE_RETRY_MS } from "./attempts.ts";
import type { Changes } from "./changes.ts";
import { Claims, type Claim } from "./claims.ts";
import type { Database } from "./database.ts";
import { SqliteJournal, type OwnedRun } from "./journal.ts";
import { Lookout } from "./lookout.ts";
import type { SqliteSettings } from "./options.ts";
import { isRefusal } from "./errors.ts";
import { wakeRun } from "./runs.ts";
import { ACTIVE, DELAYED, READY, WORKFLOW_LANE } from "./schema.ts";
import { settleRefused } from "./settling.ts";
import { storedMs } from "./stored.ts";
import { nextDue, promoteDue, prune, recoverLost, settleTimeless } from "./upkeep.ts";

/** The number of workflow runs in one worker at a time. They wait for the file, not for work. */
const MAX_TICKS = 100;
const PRUNE_EVERY_MS = 30_000;

/** Claims, runs and settles. Its lease covers all runs that it holds. */
export class SqliteWorker implements WorkerHandle {
  readonly #database: Database;
  readonly #settings: SqliteSettings;
  readonly #request: WorkerRequest;
  readonly #runtime: WorkerRuntime;
  readonly #claims: Claims;
  readonly #drive: (run: OwnedRun) => Promise<TickResult | "lost">;
  readonly #attempts: Attempts;
  readonly #lookout = new Lookout();
  readonly #changes: Changes;
  readonly #intervals: Intervals;
  readonly #shutdown = new Shutdown({ abort: () => this.#attempts.abortAll("shutdown"), finish: () => this.#finish() });
  #unsubscribe = (): void => {};
  #owner = randomUUID();
  #busy = 0;
  #ticking = 0;
  #claiming = false;
  /** Whether a change came after the claim under way had looked. */
  #missed = false;
  #idle: (() => void) | undefined;
  #dueTimer: NodeJS.Timeout | undefined;
  /** The last renewal, by the monotonic clock. Undefined before the first one. */
  #renewedAt: number | undefined;
  #asking: Promise<void> | undefined;

  constructor(database: Database, settings: SqliteSettings, changes: Changes, request: WorkerRequest, runtime: WorkerRuntime) {
    this.#database = database;
    this.#settings = settings;
    this.#request = request;
    this.#runtime = runtime;
    this.#attempts = new Attempts(database, runtime);
    this.#claims = new Claims(database, request.queues, runtime.definitions);
    this.#drive = createDrive(runtime, new SqliteJournal(database, settings.retentionMs, () => this.pump()));
    this.#changes = changes;
    this.#intervals = new Intervals(runtime.log);
  }

  /** Resolves once the worker claims. If it cannot start, nothing of it is left. */
  async start(): Promise<void> {
    await this.#heartbeat();
    if (this.#shutdown.stopping) throw new BackendClosedError("startWorker");
    this.#unsubscribe = this.#changes.subscribe(() => this.notice());
    this.#runtime.onStray((id) => this.#wake(id));
    this.#intervals.every(Math.max(this.#settings.leaseMs / 3, 30), "renew the lease", () => this.#heartbeat());
    this.#intervals.every(Math.min(PRUNE_EVERY_MS, Math.max(this.#settings.retentionMs / 2, 100)), "forget old runs", () => this.#tidy());
    this.#intervals.every(2_000, "look for unknown names", () => this.#warnUnknown());
    this.pump();
  }

  healthy(): boolean {
    return !this.#shutdown.stopping && performance.now() < (this.#renewedAt ?? -Infinity) + this.#settings.leaseMs;
  }

  stop(graceMs: number): Promise<void> {
    this.#attempts.stopping = true;
    return this.#shutdown.stop(graceMs);
  }

  /** Ends the worker because the file is being closed: its lease expires, and other workers get its runs. */
  abandon(): void {
    void this.stop(0);
    this.#endTimers();
  }

  /** Claims runs for the free slots, if there are any. */
  pump(): void {
    if (this.#shutdown.stopping) return;
    if (this.#claiming) {
      this.#missed = true;
      return;
    }
    try {
      // If other writes are pending, the claim joins their transaction; otherwise a read looks for runs first.
      if (!this.#database.writer.pending) {
        const due = nextDue(this.#database);
        if ((due === undefined || due > Date.now()) && !this.#claims.any(this.#free())) return this.#armDueTimer(due);
      }
    } catch (error) {
      return this.#trouble("look for runs", error);
    }
    this.#claiming = true;
    this.#missed = false;
    const owner = this.#owner;
    this.#database.writer
      .write(() => this.#claim(owner), "last")
      .then(
        ({ claims, due }) => {
          this.#claiming = false;
          if (owner === this.#owner) for (const claim of claims) this.#begin(claim, owner);
          if (this.#shutdown.aborting) this.#attempts.abortAll("shutdown");
          this.#armDueTimer(due);
          this.#checkIdle();
          if (this.#missed) this.pump();
        },
        (error: unknown) => {
          this.#claiming = false;
          this.#trouble("claim runs", error);
          this.#checkIdle();
        },
      );
  }

  #claim(owner: string): { claims: Claim[]; due: number | undefined } {
    // A worker whose lease others have ended must not own a run under its old name: nobody would recover that run.
    const alive = this.#database.get("SELECT 1 FROM workers WHERE id = ?", owner);
    if (this.#shutdown.stopping || !alive) return { claims: [], due: undefined };
    let due = nextDue(this.#database);
    if (due !== undefined && due <= Date.now()) {
      promoteDue(this.#database);
      due = nextDue(this.#database);
    }
    return { claims: this.#claims.take(owner, this.#free(), MAX_TICKS - this.#ticking), due };
  }

  #free(): number {
    return this.#request.concurrency - this.#busy;
  }

  #begin(claim: Claim, owner: string): void {
    void (claim.lane === WORKFLOW_LANE ? this.#tick(claim, owner) : this.#attempt(claim, owner));
  }

  async #attempt(claim: Claim, owner: string): Promise<void> {
    // The slot becomes free just before the transaction that settles: the next claim joins it.
    this.#busy++;
    const holds = (): boolean | Promise<boolean> => (this.#isStale() ? this.#ask(owner) : owner === this.#owner);
    await this.#attempts.run(claim, owner, holds, () => {
      this.#busy--;
      this.pump();
    });
    this.#checkIdle();
  }

  /** Whether the worker may have lost its runs, because its process was frozen. */
  #isStale(): boolean {
    return performance.now() - (this.#renewedAt ?? -Infinity) > this.#settings.leaseMs / 2;
  }

  async #ask(owner: string): Promise<boolean> {
    await (this.#asking ??= this.#heartbeat()
      .catch(() => {})
      .finally(() => (this.#asking = undefined)));
    // The answer may have come late, too.
    return owner === this.#owner && !this.#isStale();
  }

  // ---- workflows ----

  async #tick(claim: Claim, owner: string): Promise<void> {
    const { id, name, queue, version, input, headers, priority, startedAtMs, lostTicks } = claim;
    this.#ticking++;
    try {
      await this.#drive({ id, name, queue, input, headers, priority, startedAtMs, lostTicks, owner, ...(version !== null && { version }) });
    } catch (error) {
      // The claim is still this worker's: it is released, now or by the lease.
      this.#runtime.evict(id);
      await this.#release(claim, owner, error);
    }
    this.#ticking--;
    this.pump();
    this.#checkIdle();
  }

  /** Wakes a run whose function went on outside of a tick; its next tick reports that. */
  #wake(id: string): void {
    this.#database.writer
      .write(() => wakeRun(this.#database, id))
      .catch((error: unknown) => this.#runtime.log.warn(`Workflow run ${id} was not woken: ${(error as Error).message}`));
  }

  /** Releases a run whose tick could not be stored; if storing it can never work, the run is settled. */
  async #release(claim: Claim, owner: string, error: unknown): Promise<void> {
    const release = (): void => {
      this.#database.run(
        `UPDATE runs SET state = ${DELAYED}, owner = NULL, run_at = ? WHERE seq = ? AND owner = ? AND state = ${ACTIVE}`,
        storedMs(Date.now() + TROUBLE_RETRY_MS),
        claim.seq,
        owner,
      );
    };
    const refused = isRefusal(error);
    const how = refused ? "is refused by the file" : "cannot be stored yet";
    this.#runtime.log.error(`Workflow run ${claim.id} of "${claim.name}" ${how}: ${(error as Error).message}`);
    let write = refused ? (): void => settleRefused(this.#database, claim, owner, error) : release;
    while (owner === this.#owner) {
      try {
        await this.#database.writer.write(() => write());
        return;
      } catch (again) {
        // The failure is refused as well. The reason may pass, so the run is released.
        if (isRefusal(again)) write = release;
        if (this.#shutdown.stopping) return;
        await pause(TROUBLE_RETRY_MS);
      }
    }
  }

  // ---- the lease, and changes by others ----

  /** Renews the lease, and takes over the runs of lost workers. */
  async #heartbeat(): Promise<void> {
    const owner = this.#owner;
    const now = performance.now();
    try {
      const held = await this.#database.writer.write(() => {
        const { leaseMs } = this.#settings;
        const first = this.#renewedAt === undefined;
        const renewed = this.#database.run("UPDATE workers SET renewals = renewals + 1 WHERE id = ?", owner) === 1;
        if (!renewed && first)
          this.#database.run("INSERT INTO workers (id, name, renewals, lease_ms) VALUES (?, ?, 0, ?)", owner, this.#request.name, leaseMs);
        return { renewed: renewed || first, recovered: recoverLost(this.#database, this.#lookout) };
      });
      if (owner !== this.#owner) return;
      if (!held.renewed) return await this.#startOver();
      this.#renewedAt = now;
      if (held.recovered > 0) this.#runtime.log.warn(`Took ${held.recovered} runs over from a worker that was lost`);
    } catch (error) {
      if (this.#renewedAt === undefined) throw error;
      this.#runtime.log.error(`The lease cannot be renewed: ${(error as Error).message}`);
    }
    this.pump();
  }

  /** Starts again under a new name: this worker was away for longer than its lease, and its runs belong to others now. */
  async #startOver(): Promise<void> {
    this.#runtime.log.warn("This worker was away for longer than its lease; its runs were given to others");
    this.#owner = randomUUID();
    this.#renewedAt = undefined;
    this.#attempts.abortAll("lost");
    await this.#heartbeat();
  }

  /** Reacts to a commit of this or another process. */
  notice(): void {
    try {
      this.#noticeCancels();
    } catch (error) {
      this.#trouble("look for cancellations", error);
    }
    this.pump();
  }

  #noticeCancels(): void {
    if (this.#attempts.size === 0) return;
    for (const { id } of this.#database.all<{ id: string }>(
      `SELECT id FROM runs WHERE owner = ? AND cancel_requested = 1 AND state = ${ACTIVE}`,
      this.#owner,
    )) {
      this.#attempts.abort(id, "cancel");
    }
  }

  async #tidy(): Promise<void> {
    const tidy = (): boolean => {
      settleTimeless(this.#database);
      return prune(this.#database, this.#settings.retentionMs);
    };
    while ((await this.#database.writer.write(tidy)) && !this.#shutdown.stopping) continue;
  }

  /** Warns of runs in its queues that no definition here fits. Another worker may have one. */
  #warnUnknown(): void {
    // A run that was submitted by name only waits under its bare name.
    const known = new Set(this.#runtime.definitions.flatMap((definition) => [definitionKey(definition), definition.name]));
    for (const queue of this.#request.queues) {
      const waiting = this.#database.all<{ definition: string }>(
        `SELECT DISTINCT definition FROM (SELECT definition FROM runs WHERE open = ${READY} AND queue = ? AND lane IN (0, 1) LIMIT 1000)`,
        queue,
      );
      for (const { definition } of waiting) {
        if (!known.has(definition))
          this.#runtime.log.warn(`Runs of "${definition}" wait in queue "${queue}" for a worker that has it; this one does not`);
      }
    }
  }

  // ---- timers and the end ----

  #armDueTimer(due: number | undefined): void {
    clearTimeout(this.#dueTimer);
    if (this.#shutdown.stopping || due === undefined) return;
    this.#dueTimer = setTimeout(() => this.pump(), Math.min(Math.max(due - Date.now(), 1), MAX_TIMER_MS));
  }

  #trouble(what: string, error: unknown): void {
    this.#runtime.log.error(`Cannot ${what}: ${(error as Error).message}`);
    clearTimeout(this.#dueTimer);
    if (!this.#shutdown.stopping) this.#dueTimer = setTimeout(() => this.pump(), TROUBLE_RETRY_MS);
  }

  async #finish(): Promise<void> {
    clearTimeout(this.#dueTimer);
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      this.#checkIdle();
    });
    this.#endTimers();
    // The row is marked as ended, not deleted: if the worker still owns a run, the next worker finds it.
    await this.#database.writer
      .write(() => this.#database.run("UPDATE workers SET lease_ms = 0 WHERE id = ?", this.#owner))
      .catch(() => {});
  }

  #endTimers(): void {
    clearTimeout(this.#dueTimer);
    this.#intervals.stop();
    this.#unsubscribe();
    this.#runtime.onStray(() => {});
  }

  #checkIdle(): void {
    if (this.#shutdown.stopping && !this.#claiming && this.#attempts.size === 0 && this.#ticking === 0) this.#idle?.();
  }
}
