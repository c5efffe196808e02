import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "@task-backend/core/adapter";
import { toClaim, type Claim, type Lane } from "./store.ts";
import type { Slots } from "./slots.ts";

/** The longest wait for a job before asking again; BullMQ calls it the drain delay. */
const DRAIN_MS = 5_000;
export const TROUBLE_RETRY_MS = 500;
/** How much later than others a worker claims a run that it has released. If two workers wait, Redis always serves the older client. */
const STEP_ASIDE_MS = 250;

export interface LaneLoopOptions {
  readonly lane: Lane;
  readonly slots: Slots;
  readonly log: Logger;
  /** Aborted when the worker stops claiming. */
  readonly ending: AbortSignal;
  /** Called with a claim, which holds a slot. */
  readonly onClaim: (claim: Claim) => void;
  readonly onTrouble: (trouble: boolean) => void;
}

/** Claims from one lane for as long as the worker runs, never beyond the free slots. */
export class LaneLoop {
  readonly #options: LaneLoopOptions;
  /** Whether the store had no job at the last claim, so that the next claim waits for news. */
  #drained = false;
  /** Whether this worker has news that it has not acted on. */
  #told = false;
  /** When the next delayed job is due, as far as is known; 0 when none is. */
  #dueAtMs = 0;
  /** Until this time, due runs may be ones that this worker has released for others. */
  #asideUntilMs = 0;
  /** Whether other workers have been told when the released run is due. */
  #toldOthers = true;

  constructor(options: LaneLoopOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { lane, log, ending, onTrouble } = this.#options;
    while (!ending.aborted) {
      try {
        await this.#turn();
      } catch (error) {
        if (ending.aborted) break;
        onTrouble(true);
        // News may have been missed meanwhile, so the store is asked.
        this.#drained = false;
        log.error(`Cannot claim runs of queue ${lane.queue}: ${(error as Error).message}`);
        await pause(TROUBLE_RETRY_MS, undefined, { signal: ending }).catch(() => {});
      }
    }
    // News for this worker may have come after its last claim.
    this.#told = true;
    await this.#announce().catch(() => {});
  }

  /** Leaves a run that was released with a delay to a worker that knows it: this one does not claim it at once. */
  stepAside(delayMs: number): void {
    if (delayMs <= 0) return;
    this.#asideUntilMs = Date.now() + delayMs + STEP_ASIDE_MS;
    this.#toldOthers = false;
  }

  async #turn(): Promise<void> {
    const { slots } = this.#options;
    if (!slots.free) {
      // Other workers may have a free slot for the news that this worker got.
      await this.#announce();
      await slots.available(this.#options.lane);
      // News may have reached nobody meanwhile, so the store is asked.
      this.#drained = false;
      return;
    }
    if (this.#drained) return this.#wait();
    if (slots.take()) await this.#claim();
  }

  async #wait(): Promise<void> {
    const { lane } = this.#options;
    const news = await lane.wait(this.#dueAtMs > 0 ? Math.min(this.#untilDue(), DRAIN_MS) : DRAIN_MS);
    if (news !== undefined && news > Date.now()) {
      this.#dueAtMs = news;
      // Only one worker hears of it, and this one has no use for the run.
      if (news <= this.#asideUntilMs && !this.#toldOthers) {
        this.#toldOthers = true;
        await lane.announce(news);
      }
      return;
    }
    this.#told = news !== undefined;
    this.#drained = false;
  }

  async #claim(): Promise<void> {
    const { lane, slots, onClaim, onTrouble } = this.#options;
    const token = randomUUID();
    const askedAt = performance.now();
    const answer = await lane.claim(token).catch((error: unknown) => {
      slots.give();
      throw error;
    });
    onTrouble(false);
    this.#told = false;
    const claim = toClaim(lane, token, answer, askedAt);
    if (claim) return onClaim(claim);
    slots.give();
    this.#drained = true;
    await this.#pace((answer ?? []) as [unknown, unknown, number?, number?]);
  }

  /** Waits until the rate limit allows a claim. */
  async #pace([, , limitMs = 0, dueAtMs = 0]: [unknown, unknown, number?, number?]): Promise<void> {
    this.#dueAtMs = dueAtMs;
    if (limitMs <= 0) return;
    await pause(Math.min(limitMs, DRAIN_MS), undefined, { signal: this.#options.ending }).catch(() => {});
    this.#drained = false;
  }

  #untilDue(): number {
    const aside = this.#dueAtMs <= this.#asideUntilMs ? STEP_ASIDE_MS : 0;
    return Math.max(this.#dueAtMs + aside - Date.now(), 1);
  }

  async #announce(): Promise<void> {
    const { lane } = this.#options;
    if (this.#told) await lane.announce(0);
    if (this.#dueAtMs > 0) await lane.announce(this.#dueAtMs);
    this.#told = false;
    this.#dueAtMs = 0;
  }
}
