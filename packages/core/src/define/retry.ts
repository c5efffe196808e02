import { MAX_DURATION_MS, parseDuration, type Duration } from "../values/duration.ts";
import { InvalidArgumentError } from "../values/errors.ts";
import { show } from "../values/show.ts";
import { checkOptions } from "./checks.ts";

/** When a failed attempt is retried. */
export interface RetryOptions {
  /** How often a run may start, lost starts included. Default 3. */
  attempts?: number;
  backoff?: {
    /** `exponential`: `delay * factor ** (attempt - 1)`; `fixed`: `delay`. Default exponential. */
    type?: "exponential" | "fixed";
    /** The delay before the second attempt. Default 1 s. */
    delay?: Duration;
    /** From 1 to 1,000. Default 2. */
    factor?: number;
    /** Default 1 min, or `delay` if that is longer. */
    maxDelay?: Duration;
    /** Adds up to 25 % to each delay and never shortens it. Default true. */
    jitter?: boolean;
  };
}

/** `RetryOptions` with every default filled in. */
export interface RetryPolicy {
  readonly attempts: number;
  readonly type: "exponential" | "fixed";
  readonly delayMs: number;
  readonly factor: number;
  readonly maxDelayMs: number;
  readonly jitter: boolean;
}

const JITTER = 0.25;
/** Engines count attempts in 32 bits. */
const MAX_ATTEMPTS = 1_000_000_000;
const MAX_FACTOR = 1_000;
const DEFAULTS: RetryPolicy = { attempts: 3, type: "exponential", delayMs: 1_000, factor: 2, maxDelayMs: 60_000, jitter: true };

/**
 * Fills in a policy from the options.
 * @param base supplies the values that the options leave out: the defaults, or the definition's own policy under the operator's
 * @throws InvalidArgumentError
 */
export function parseRetry(options: RetryOptions | undefined, where: string, base: RetryPolicy = DEFAULTS): RetryPolicy {
  if (options === undefined) return base;
  checkOptions(options, ["attempts", "backoff"], where, InvalidArgumentError);
  const { attempts = base.attempts, backoff = {} } = options;
  if (!Number.isInteger(attempts) || attempts < 1 || attempts > MAX_ATTEMPTS) {
    throw new InvalidArgumentError(`${where}.attempts is ${show(attempts)}; give a whole number from 1 to ${MAX_ATTEMPTS}.`);
  }
  return { attempts, ...parseBackoff(backoff, `${where}.backoff`, base) };
}

function parseBackoff(backoff: NonNullable<RetryOptions["backoff"]>, where: string, base: RetryPolicy): Omit<RetryPolicy, "attempts"> {
  checkOptions(backoff, ["type", "delay", "factor", "maxDelay", "jitter"], where, InvalidArgumentError);
  const { type = base.type, delay, factor = base.factor, maxDelay, jitter = base.jitter } = backoff;
  if (type !== "exponential" && type !== "fixed") {
    throw new InvalidArgumentError(`${where}.type is ${show(type)}; the types are "exponential" and "fixed".`);
  }
  if (typeof factor !== "number" || !(factor >= 1 && factor <= MAX_FACTOR)) {
    throw new InvalidArgumentError(`${where}.factor is ${show(factor)}; give a number from 1 to ${MAX_FACTOR}.`);
  }
  if (typeof jitter !== "boolean") throw new InvalidArgumentError(`${where}.jitter is ${show(jitter)}; give true or false.`);
  const delayMs = delay === undefined ? base.delayMs : parseDuration(delay, `${where}.delay`);
  // A default cap must not cut a delay that was given.
  const capMs = delay === undefined ? base.maxDelayMs : Math.max(base.maxDelayMs, delayMs);
  const maxDelayMs = maxDelay === undefined ? capMs : parseDuration(maxDelay, `${where}.maxDelay`);
  return { type, delayMs, factor, maxDelayMs, jitter };
}

/** How long to wait after the failure of `attempt` (1 for the first), in whole milliseconds, never more than the longest duration. */
export function backoffMs(policy: RetryPolicy, attempt: number, random: () => number = Math.random): number {
  // A delay of 0 stays 0 with any factor: 0 times Infinity is not a number.
  const growth = policy.type === "fixed" || policy.delayMs === 0 ? 1 : policy.factor ** (attempt - 1);
  const capped = Math.min(policy.delayMs * growth, policy.maxDelayMs);
  return Math.min(Math.ceil(policy.jitter ? capped * (1 + JITTER * random()) : capped), MAX_DURATION_MS);
}
