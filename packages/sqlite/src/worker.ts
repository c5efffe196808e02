import { randomUUID } from "node:crypto";
import {
  createDrive,
  MAX_TIMER_MS,
  type AbortReason,
  type Decision,
  type Json,
  type StepOutcome,
  type TickResult,
  type WorkerHandle,
  type WorkerRequest,
  type WorkerRuntime,
  type WorkflowRun,
} from "@task-backend/core/adapter";
import type { Changes } from "./changes.ts";
import { Claims, type Claim } from "./claims.ts";
import type { Database } from "./database.ts";
import { SqliteJournal } from "./journal.ts";
import type { SqliteSettings } from "./options.ts";
import { cancelled, nextDue, promoteDue, prune, recoverLost, settleRun, SETTLEMENT_COLUMNS, type Settlement } from "./runs.ts";
import { ACTIVE, DELAYED, READY, WORKFLOW_LANE } from "./schema.ts";

/** Workflow runs that one worker takes further at a time. They wait for the file, not for work. */
const MAX_TICKS = 100;
const TROUBLE_RETRY_MS = 500;
const PRUNE_EVERY_MS = 30_000;
const PROGRESS_EVERY_MS = 50;

interface Running {
  readonly claim: Claim;
  readonly owner: string;
  readonly controller: AbortController;
  progress: Json | undefined;
  progressTimer: NodeJS.Timeout | undefined;
}

/** Claims, runs and settles. Its lease covers all that it holds. */
export class SqliteWorker implements WorkerHandle {
  readonly #database: Database;
  readonly #settings: SqliteSettings;
  readonly #request: WorkerRequest;
  readonly #runtime: WorkerRuntime;
  readonly #claims: Claims;
  readonly #drive: (run: WorkflowRun, owner: string) => Promise<TickResult | "lost">;
  readonly #running = new Map<string, Running>();
  readonly #ticking = new Set<string>();
  readonly #unsubscribe: (() => void)[] = [];
  readonly #timers = new Set<NodeJS.Timeout>();
  #owner = randomUUID();
  #busy = 0;
  #claiming = false;
  #stopping = false;
  #stopped: Promise<void> | undefined;
  #graceTimer: NodeJS.Timeout | undefined;
  #idle: (() => void) | undefined;
  #dueTimer: NodeJS.Timeout | undefined;
  #leaseUntilMs = 0;

  constructor(database: Database, settings: SqliteSettings, changes: Changes, request: WorkerRequest, runtime: WorkerRuntime) {
    this.#database = database;
    this.#settings = settings;
    this.#request = request;
    this.#runtime = runtime;
    this.#claims = new Claims(database, request.queues, runtime.definitions);
    this.#drive = createDrive(runtime, new SqliteJournal(database, settings.retentionMs, () => this.pump()));
    this.#unsubscribe.push(changes.subscribe(() => this.notice()));
  }

  async start(): Promise<void> {
    await this.#heartbeat();
    this.#every(Math.max(this.#settings.leaseMs / 3, 30), () => this.#heartbeat());
    this.#every(Math.min(PRUNE_EVERY_MS, Math.max(this.#settings.retentionMs / 2, 100)), () => this.#prune());
    this.#every(2_000, () => this.#warnUnknown());
    this.pump();
  }

  healthy(): boolean {
    return !this.#stopping && Date.now() < this.#leaseUntilMs;
  }

  stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#graceTimer);
    const abort = (): void => this.#abortAll("shutdown");
    if (graceMs === 0) abort();
    else this.#graceTimer = setTimeout(abort, Math.min(graceMs, MAX_TIMER_MS));
    this.#stopped ??= this.#finishStopping();
    return this.#stopped;
  }

  /** Claims what it has room for, if there is anything. */
  pump(): void {
    if (this.#stopping || this.#claiming) return;
    try {
      // With other writes on their way there is a transaction to join, otherwise a look comes first.
      if (!this.#database.writer.pending) {
        const due = nextDue(this.#database);
        if ((due === undefined || due > Date.now()) && !this.#claims.any(this.#free())) return this.#armDueTimer(due);
      }
    } catch (error) {
      return this.#trouble("look for runs", error);
    }
    this.#claiming = true;
    const owner = this.#owner;
    this.#database.writer
      .write(() => this.#claim(owner), "last")
      .then(
        ({ claims, due }) => {
          this.#claiming = false;
          for (const claim of claims) this.#begin(claim, owner);
          this.#armDueTimer(due);
          this.#checkIdle();
        },
        (error: unknown) => {
          this.#claiming = false;
          this.#trouble("claim runs", error);
          this.#checkIdle();
        },
      );
  }

  #claim(owner: string): { claims: Claim[]; due: number | undefined } {
    if (this.#stopping) return { claims: [], due: undefined };
    let due = nextDue(this.#database);
    if (due !== undefined && due <= Date.now()) {
      promoteDue(this.#database);
      due = nextDue(this.#database);
    }
    return { claims: this.#claims.take(owner, this.#free(), MAX_TICKS - this.#ticking.size), due };
  }

  #free(): number {
    return this.#request.concurrency - this.#busy;
  }

  #begin(claim: Claim, owner: string): void {
    void (claim.lane === WORKFLOW_LANE ? this.#tick(claim, owner) : this.#attempt(claim, owner));
  }

  // ---- tasks ----

  async #attempt(claim: Claim, owner: string): Promise<void> {
    const { id, name, queue, input, headers, previousError, attempts } = claim;
    const running: Running = { claim, owner, controller: new AbortController(), progress: undefined, progressTimer: undefined };
    this.#running.set(id, running);
    this.#busy++;
    const decision = await this.#runtime.execute({
      id,
      name,
      queue,
      attempt: attempts,
      input,
      headers,
      ...(previousError && { previousError }),
      signal: running.controller.signal,
      progress: (value) => this.#progress(running, value),
    });
    clearTimeout(running.progressTimer);
    // The slot is free in the transaction that settles: the next claim joins it.
    this.#busy--;
    const settled = this.#persist(running, decision);
    this.pump();
    await settled;
    this.#running.delete(id);
    this.#checkIdle();
  }

  /** Writes the decision down, as long as the run is ours: trouble with the file must not lose an outcome. */
  async #persist(running: Running, decision: Decision): Promise<void> {
    while (running.controller.signal.reason !== ("lost" satisfies AbortReason)) {
      try {
        await this.#database.writer.write(() => this.#apply(running, decision));
        return;
      } catch (error) {
        this.#runtime.log.error(`The outcome of run ${running.claim.id} cannot be stored yet: ${(error as Error).message}`);
        if (this.#stopped) return;
        await new Promise((resolve) => setTimeout(resolve, TROUBLE_RETRY_MS));
      }
    }
  }

  #apply({ claim, owner, progress }: Running, decision: Decision): void {
    const database = this.#database;
    const row = database.get<Settlement & { cancel_requested: number }>(
      `SELECT ${SETTLEMENT_COLUMNS}, cancel_requested FROM runs WHERE seq = ? AND id = ? AND owner = ? AND state = ${ACTIVE}`,
      claim.seq,
      claim.id,
      owner,
    );
    if (!row) return;
    if (progress !== undefined) database.run("UPDATE runs SET progress = ? WHERE seq = ?", JSON.stringify(progress), claim.seq);
    if (row.cancel_requested === 1)
      return settleRun(database, row, decision.do === "settle" && decision.status === "cancelled" ? decision : cancelled(claim.name));
    switch (decision.do) {
      case "complete":
        return settleRun(database, row, { status: "completed", output: decision.output });
      case "settle":
        return settleRun(database, row, decision satisfies StepOutcome, decision.attempts);
      case "retry":
        return this.#putBack(claim, "retrying", decision.delayMs, claim.attempts, JSON.stringify(decision.error));
      case "release":
        return this.#putBack(
          claim,
          claim.previousError ? "retrying" : "pending",
          decision.delayMs,
          claim.attempts - 1,
          claim.previousError ? JSON.stringify(claim.previousError) : null,
        );
    }
  }

  #putBack(claim: Claim, status: string, delayMs: number, attempts: number, error: string | null): void {
    this.#database.run(
      `UPDATE runs SET state = ?, status = ?, run_at = ?, owner = NULL, attempts = ?, error = ?, started_at = CASE ? WHEN 0 THEN NULL ELSE started_at END WHERE seq = ?`,
      delayMs > 0 ? DELAYED : READY,
      status,
      Date.now() + delayMs,
      attempts,
      error,
      attempts,
      claim.seq,
    );
  }

  #progress(running: Running, value: Json): void {
    running.progress = value;
    running.progressTimer ??= setTimeout(() => {
      running.progressTimer = undefined;
      const { claim, owner, progress } = running;
      this.#database.writer
        .write(() =>
          this.#database.run(
            `UPDATE runs SET progress = ? WHERE seq = ? AND id = ? AND owner = ? AND state = ${ACTIVE}`,
            JSON.stringify(progress),
            claim.seq,
            claim.id,
            owner,
          ),
        )
        .catch((error: unknown) => this.#runtime.log.warn(`The progress of run ${claim.id} was not stored: ${(error as Error).message}`));
    }, PROGRESS_EVERY_MS);
  }

  // ---- workflows ----

  async #tick(claim: Claim, owner: string): Promise<void> {
    const { id, name, queue, version, input, headers, startedAtMs, lostTicks } = claim;
    this.#ticking.add(id);
    try {
      await this.#drive({ id, name, queue, input, headers, startedAtMs, lostTicks, ...(version !== null && { version }) }, owner);
    } catch (error) {
      // The claim stays with this worker: give it back, or let the lease do so.
      this.#runtime.evict(id);
      this.#runtime.log.error(`Workflow run ${id} cannot be stored yet: ${(error as Error).message}`);
      await this.#giveBack(claim, owner);
    }
    this.#ticking.delete(id);
    this.pump();
    this.#checkIdle();
  }

  async #giveBack(claim: Claim, owner: string): Promise<void> {
    const giveBack = (): number =>
      this.#database.run(
        `UPDATE runs SET state = ${DELAYED}, owner = NULL, run_at = ? WHERE seq = ? AND owner = ? AND state = ${ACTIVE}`,
        Date.now() + TROUBLE_RETRY_MS,
        claim.seq,
        owner,
      );
    while (owner === this.#owner) {
      try {
        await this.#database.writer.write(giveBack);
        return;
      } catch {
        if (this.#stopped) return;
        await new Promise((resolve) => setTimeout(resolve, TROUBLE_RETRY_MS));
      }
    }
  }

  // ---- the lease, and what others did ----

  /** Renews the lease; takes over from workers whose lease is over. */
  async #heartbeat(): Promise<void> {
    const owner = this.#owner;
    const until = Date.now() + this.#settings.leaseMs;
    try {
      const held = await this.#database.writer.write(() => {
        const renewed = this.#database.run("UPDATE workers SET lease_until = ? WHERE id = ?", until, owner) === 1;
        if (!renewed && this.#leaseUntilMs === 0)
          this.#database.run("INSERT INTO workers (id, name, lease_until) VALUES (?, ?, ?)", owner, this.#request.name, until);
        const recovered = recoverLost(this.#database);
        return { renewed: renewed || this.#leaseUntilMs === 0, recovered };
      });
      if (!held.renewed) return await this.#startOver();
      this.#leaseUntilMs = until;
      if (held.recovered > 0) this.#runtime.log.warn(`Took ${held.recovered} runs over from a worker that was lost`);
    } catch (error) {
      if (this.#leaseUntilMs === 0) throw error;
      this.#runtime.log.error(`The lease cannot be renewed: ${(error as Error).message}`);
    }
    this.pump();
  }

  /** This worker was away for longer than its lease: all it held belongs to others now. */
  async #startOver(): Promise<void> {
    this.#runtime.log.warn("This worker was away for longer than its lease; its runs were given to others");
    this.#owner = randomUUID();
    this.#leaseUntilMs = 0;
    this.#abortAll("lost");
    await this.#heartbeat();
  }

  /** Something was committed, here or elsewhere. */
  notice(): void {
    try {
      this.#noticeCancels();
    } catch (error) {
      this.#trouble("look for cancellations", error);
    }
    this.pump();
  }

  #noticeCancels(): void {
    if (this.#running.size === 0) return;
    for (const { id } of this.#database.all<{ id: string }>(
      `SELECT id FROM runs WHERE owner = ? AND cancel_requested = 1 AND state = ${ACTIVE}`,
      this.#owner,
    )) {
      this.#running.get(id)?.controller.abort("cancel" satisfies AbortReason);
    }
  }

  #prune(): Promise<void> {
    return this.#database.writer
      .write(() => prune(this.#database, this.#settings.retentionMs))
      .then(
        (more) => (more ? this.#prune() : undefined),
        (error: unknown) => this.#runtime.log.warn(`Old runs were not pruned: ${(error as Error).message}`),
      );
  }

  /** Runs of its queues that no definition here fits: for an operator to see, another worker may have it. */
  #warnUnknown(): void {
    const known = new Set(this.#runtime.definitions.map((definition) => definition.name));
    for (const queue of this.#request.queues) {
      const waiting = this.#database.all<{ definition: string; name: string }>(
        `SELECT DISTINCT definition, name FROM (SELECT definition, name FROM runs WHERE state = ${READY} AND queue = ? AND lane IN (0, 1) LIMIT 1000)`,
        queue,
      );
      for (const { name, definition } of waiting) {
        if (!known.has(name))
          this.#runtime.log.warn(`Runs of "${definition}" wait in queue "${queue}" for a worker that has it; this one does not`);
      }
    }
  }

  // ---- timers and the end ----

  #every(ms: number, work: () => unknown): void {
    let atWork = false;
    const timer = setInterval(() => {
      if (atWork) return;
      atWork = true;
      void Promise.resolve()
        .then(work)
        .catch((error: unknown) => this.#runtime.log.warn((error as Error).message))
        .finally(() => (atWork = false));
    }, ms);
    this.#timers.add(timer);
  }

  #armDueTimer(due: number | undefined): void {
    clearTimeout(this.#dueTimer);
    if (this.#stopping || due === undefined) return;
    this.#dueTimer = setTimeout(() => this.pump(), Math.min(Math.max(due - Date.now(), 1), MAX_TIMER_MS));
  }

  #trouble(what: string, error: unknown): void {
    this.#runtime.log.error(`Cannot ${what}: ${(error as Error).message}`);
    clearTimeout(this.#dueTimer);
    if (!this.#stopping) this.#dueTimer = setTimeout(() => this.pump(), TROUBLE_RETRY_MS);
  }

  #abortAll(reason: AbortReason): void {
    for (const running of this.#running.values()) running.controller.abort(reason);
  }

  async #finishStopping(): Promise<void> {
    clearTimeout(this.#dueTimer);
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      this.#checkIdle();
    });
    clearTimeout(this.#graceTimer);
    for (const timer of this.#timers) clearInterval(timer);
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    await this.#database.writer.write(() => this.#database.run("DELETE FROM workers WHERE id = ?", this.#owner)).catch(() => {});
  }

  #checkIdle(): void {
    if (this.#stopping && !this.#claiming && this.#running.size === 0 && this.#ticking.size === 0) this.#idle?.();
  }
}
