import { parseDuration, type Duration } from "../values/duration.ts";
import { InvalidArgumentError } from "../values/errors.ts";

/** When a failed attempt is tried again. */
export interface RetryOptions {
  /** How often a run may start, lost starts included. Default 3. */
  attempts?: number;
  backoff?: {
    /** `exponential`: `delay * factor ** (attempt - 1)`; `fixed`: `delay`. Default exponential. */
    type?: "exponential" | "fixed";
    /** Before the second attempt. Default 1 s. */
    delay?: Duration;
    /** Default 2. */
    factor?: number;
    /** Default 1 min. */
    maxDelay?: Duration;
    /** Adds up to 25 %, never takes away. Default true. */
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

/** @throws InvalidArgumentError */
export function parseRetry(options: RetryOptions | undefined, where: string): RetryPolicy {
  const { attempts = 3, backoff = {} } = options ?? {};
  const { type = "exponential", delay = "1s", factor = 2, maxDelay = "1m", jitter = true } = backoff;
  if (!Number.isInteger(attempts) || attempts < 1) {
    throw new InvalidArgumentError(`${where}.attempts is ${attempts}; give a whole number from 1.`);
  }
  if (type !== "exponential" && type !== "fixed") {
    throw new InvalidArgumentError(`${where}.backoff.type is ${JSON.stringify(type)}; the types are "exponential" and "fixed".`);
  }
  if (!Number.isFinite(factor) || factor < 1) {
    throw new InvalidArgumentError(`${where}.backoff.factor is ${factor}; give a number from 1.`);
  }
  return {
    attempts,
    type,
    delayMs: parseDuration(delay, `${where}.backoff.delay`),
    factor,
    maxDelayMs: parseDuration(maxDelay, `${where}.backoff.maxDelay`),
    jitter,
  };
}

/** How long to wait after the failure of `attempt` (1 for the first), in milliseconds. */
export function backoffMs(policy: RetryPolicy, attempt: number, random: () => number = Math.random): number {
  const grown = policy.type === "fixed" ? policy.delayMs : policy.delayMs * policy.factor ** (attempt - 1);
  const capped = Math.min(grown, policy.maxDelayMs);
  return Math.ceil(policy.jitter ? capped * (1 + JITTER * random()) : capped);
}
