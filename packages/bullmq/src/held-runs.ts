import { Interruption } from "@task-backend/core/adapter";
import { toRunId } from "./ids.ts";
import type { Claim, Lane, Store } from "./store.ts";

/** A run that a worker has claimed and not finished. */
export interface HeldRun {
  readonly lane: Lane;
  readonly claim: Claim;
  readonly interruption: Interruption;
}

/** The runs that one worker holds, with their locks. */
export class HeldRuns {
  readonly #store: Store;
  readonly #lockMs: number;
  /** The runs by id. */
  readonly #held = new Map<string, HeldRun>();

  constructor(store: Store, lockMs: number) {
    this.#store = store;
    this.#lockMs = lockMs;
  }

  get size(): number {
    return this.#held.size;
  }

  add(lane: Lane, claim: Claim): HeldRun {
    const held = { lane, claim, interruption: new Interruption() };
    this.#held.set(toRunId(claim.ref), held);
    return held;
  }

  delete(held: HeldRun): void {
    if (this.#isHeld(held)) this.#held.delete(toRunId(held.claim.ref));
  }

  shutDown(): void {
    for (const { interruption } of this.#held.values()) interruption.abort("shutdown");
  }

  /** Whether this worker surely still owns a run: the claim is fresh, or the store confirms it. */
  isOurs(held: HeldRun): boolean | Promise<boolean> {
    return this.#isFresh(performance.now() - held.claim.askedAt) || this.#ask(held);
  }

  async renewLocks(lanes: readonly Lane[]): Promise<void> {
    for (const lane of lanes) {
      const held = [...this.#held.values()].filter((one) => one.lane === lane);
      if (held.length > 0) await this.#renew(lane, held);
    }
  }

  /** Asks the store about a run, after a message that this worker may have lost it. */
  async lookAt(id: string): Promise<void> {
    const held = this.#held.get(id);
    if (held) await this.#renew(held.lane, [held]);
  }

  async #renew(lane: Lane, held: readonly HeldRun[]): Promise<void> {
    const lost = await lane.backend.extendLocks(
      held.map(({ claim }) => claim.ref.id),
      held.map(({ claim }) => claim.token),
      this.#lockMs,
    );
    for (const one of held) if (lost.includes(one.claim.ref.id)) await this.#drop(one);
  }

  /** Aborts a run whose lock is gone or another worker's: it was cancelled, or this worker was away for too long. */
  async #drop(held: HeldRun): Promise<void> {
    if (!this.#isHeld(held)) return;
    const job = await this.#store.get(held.claim.ref);
    if (this.#isHeld(held)) held.interruption.abort(job?.state === "failed" ? "cancel" : "lost");
  }

  #isHeld(held: HeldRun): boolean {
    return this.#held.get(toRunId(held.claim.ref)) === held;
  }

  /** A process that was frozen may see the answer to its claim long after another worker got the lock. */
  #isFresh(ageMs: number): boolean {
    return ageMs < this.#lockMs / 2;
  }

  async #ask({ claim, lane }: HeldRun): Promise<boolean> {
    const askedAt = performance.now();
    const lost = await lane.backend.extendLocks([claim.ref.id], [claim.token], this.#lockMs).catch(() => [claim.ref.id]);
    // The answer may have come late, too.
    return lost.length === 0 && this.#isFresh(performance.now() - askedAt);
  }
}
