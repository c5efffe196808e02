import {
  Interruption,
  refusedRecord,
  storeOutcome,
  type AbortReason,
  type Decision,
  type Json,
  type StepOutcome,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import type { Claim } from "./claims.ts";
import type { Database } from "./database.ts";
import { causeOf, DamagedRowError, isRefusal } from "./errors.ts";
import { ACTIVE, DELAYED, READY } from "./schema.ts";
import { cancelled, settleRefused, settleRun, SETTLEMENT_COLUMNS, type Settlement } from "./settling.ts";
import { storedMs } from "./stored.ts";

/** The pause between a failed write and the next try. */
export const TROUBLE_RETRY_MS = 500;
const PROGRESS_EVERY_MS = 50;

interface Running {
  readonly claim: Claim;
  readonly owner: string;
  readonly interruption: Interruption;
  progress: Json | undefined;
  progressTimer: NodeJS.Timeout | undefined;
}

/** The attempts that run in one worker, and their outcomes. */
export class Attempts {
  /** A stopping worker does not wait for a file in trouble: its lease expires, and another worker gets the run. */
  stopping = false;
  readonly #database: Database;
  readonly #runtime: WorkerRuntime;
  readonly #running = new Map<string, Running>();

  constructor(database: Database, runtime: WorkerRuntime) {
    this.#database = database;
    this.#runtime = runtime;
  }

  get size(): number {
    return this.#running.size;
  }

  abort(id: string, reason: AbortReason): void {
    this.#running.get(id)?.interruption.abort(reason);
  }

  abortAll(reason: AbortReason): void {
    for (const { interruption } of this.#running.values()) interruption.abort(reason);
  }

  /**
   * Runs a claimed task until its outcome is stored.
   * @param onEnd called just before the outcome is stored
   */
  async run(claim: Claim, owner: string, holds: () => boolean | Promise<boolean>, onEnd: () => void): Promise<void> {
    const { id, name, queue, input, headers, previousError, attempts } = claim;
    const running: Running = { claim, owner, interruption: new Interruption(), progress: undefined, progressTimer: undefined };
    this.#running.set(id, running);
    const decision = await this.#runtime.execute({
      id,
      name,
      queue,
      attempt: attempts,
      input,
      headers,
      ...(previousError && { previousError }),
      interruption: running.interruption,
      holds,
      progress: (value) => this.#progress(running, value),
    });
    clearTimeout(running.progressTimer);
    const settled = this.#persist(running, decision);
    onEnd();
    await settled;
    // A retry without delay is claimed again in the transaction that released it, so this entry may already be its next attempt.
    if (this.#running.get(id) === running) this.#running.delete(id);
  }

  /** Stores the decision, as long as this worker owns the run. */
  #persist(running: Running, decided: Decision): Promise<void> {
    const { claim, interruption } = running;
    return storeOutcome<void>(decided, {
      what: `run ${claim.id} of "${claim.name}"`,
      log: this.#runtime.log,
      write: (decision) => this.#database.writer.write(() => this.#apply(running, decision)),
      isWanted: () => interruption.reason !== ("lost" satisfies AbortReason),
      givesUp: () => this.stopping,
      refusal: (error) => (isRefusal(error) ? refusedRecord(`the outcome of "${claim.name}"`, causeOf(error)) : undefined),
    });
  }

  #apply(running: Running, decision: Decision): void {
    try {
      this.#carryOut(running, decision);
    } catch (error) {
      if (!(error instanceof DamagedRowError)) throw error;
      settleRefused(this.#database, running.claim, running.owner, error);
    }
  }

  #carryOut({ claim, owner, progress }: Running, decision: Decision): void {
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
      storedMs(Date.now() + delayMs),
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
}
