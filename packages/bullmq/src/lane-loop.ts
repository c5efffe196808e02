import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "@task-backend/core/adapter";
import { toClaim, type Claim, type Lane } from "./store.ts";
import type { Slots } from "./slots.ts";

/** The longest wait for a job before asking again, as BullMQ's drain delay. */
const DRAIN_MS = 5_000;
export const TROUBLE_RETRY_MS = 500;
/** How much later than others a worker comes for what it has just released: of two that wait, Redis always serves the older client. */
const STEP_ASIDE_MS = 250;

export interface LaneLoopOptions {
  readonly lane: Lane;
  readonly slots: Slots;
  readonly log: Logger;
  /** Aborted when the worker claims no more. */
  readonly ending: AbortSignal;
  /** Has taken a slot. */
  readonly onClaim: (claim: Claim) => void;
  readonly onTrouble: (trouble: boolean) => void;
}

/** Claims from one lane for as long as the worker runs, never beyond the free slots. */
export class LaneLoop {
  readonly #options: LaneLoopOptions;
  /** Nothing was there when the store was last asked, so the next claim waits for news. */
  #drained = false;
  /** News that this worker has and has not followed. */
  #told = false;
  /** When the next delayed job is due, as far as is known; 0 for not at all. */
  #dueAtMs = 0;
  /** Until then what is due is what this worker has released for others. */
  #asideUntilMs = 0;
  /** Others have been told when that is due. */
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
        // What was announced meanwhile is not known: the store is asked.
        this.#drained = false;
        log.error(`Cannot claim runs of queue ${lane.queue}: ${(error as Error).message}`);
        await pause(TROUBLE_RETRY_MS, undefined, { signal: ending }).catch(() => {});
      }
    }
    // A message to this worker may have come too late for it.
    this.#told = true;
    await this.#announce().catch(() => {});
  }

  /** What is released with a delay is for a worker that knows it: this one does not take it back at once. */
  stepAside(delayMs: number): void {
    if (delayMs <= 0) return;
    this.#asideUntilMs = Date.now() + delayMs + STEP_ASIDE_MS;
    this.#toldOthers = false;
  }

  async #turn(): Promise<void> {
    const { slots } = this.#options;
    if (!slots.free) {
      // Others may be free to follow what this worker was told of.
      await this.#announce();
      await slots.available(this.#options.lane);
      // What was announced meanwhile may have been told to nobody.
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
      // One worker alone hears of it: here the one that has no use for it.
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

  /** Waits out a rate limit. */
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
