import { setTimeout as pause } from "node:timers/promises";
import type { Decision } from "../port/port.ts";
import { describeThrown, type ErrorRecord } from "../values/error-record.ts";
import type { Logger } from "../values/log.ts";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

export interface OutcomeOptions<T> {
  /** The run in log messages: `run "…" of "resize"`. */
  readonly what: string;
  readonly log: Logger;
  /** Carries out the decision, in one step that is fenced by the owner. */
  write(decision: Decision): Promise<T>;
  /** Whether the decision still matters: false when another worker owns the run, or it has been settled by somebody else. */
  isWanted(decision: Decision): boolean;
  /** Whether the worker stops trying: its lease expires, and another worker gets the run. */
  givesUp(): boolean;
  /** The failure to store instead when the store refused the outcome and would refuse it again; undefined when it is unreachable. */
  refusal(error: unknown): ErrorRecord | undefined;
}

/**
 * Stores the outcome of an attempt, for as long as this worker owns the run: trouble with the store must not lose an outcome.
 * When the store refuses the outcome, a failure that says so is stored in its place at once.
 * @returns undefined when the outcome no longer matters
 */
export async function storeOutcome<T>(decided: Decision, options: OutcomeOptions<T>): Promise<T | undefined> {
  const { what, log } = options;
  let decision = decided;
  for (let pauseMs = FIRST_PAUSE_MS; options.isWanted(decision);) {
    try {
      return await options.write(decision);
    } catch (error) {
      const refusal = options.refusal(error);
      log.error(`The outcome of ${what} ${refusal ? "is refused by the store" : "cannot be stored yet"}: ${describeThrown(error)}`);
      if (refusal && decision === decided) {
        decision = { do: "settle", status: "failed", error: refusal };
        continue;
      }
      if (options.givesUp()) return undefined;
      await pause(pauseMs);
      // The store refuses the failure too. The reason may pass, and asking twice a second gains nothing.
      if (refusal) pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }
  return undefined;
}
