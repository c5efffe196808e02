import { setTimeout as pause } from "node:timers/promises";
import type { Decision } from "../port/port.ts";
import { describeThrown, type ErrorRecord } from "../values/error-record.ts";
import type { Logger } from "../values/log.ts";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

export interface OutcomeOptions<T> {
  /** For the log: `run "…" of "resize"`. */
  readonly what: string;
  readonly log: Logger;
  /** Carries the decision out, in one step that is fenced by the owner. */
  write(decision: Decision): Promise<T>;
  /** Whether the decision still matters: false when the run is another worker's, or has been settled by somebody else. */
  isWanted(decision: Decision): boolean;
  /** Whether the worker stops trying: its lease runs out, and the run goes to another. */
  givesUp(): boolean;
  /** The record of a failure instead, when the store refused what it was given and would do so again; undefined when it is away. */
  refusal(error: unknown): ErrorRecord | undefined;
}

/**
 * Writes what came of an attempt, for as long as the run is this worker's: trouble with the store must not lose an outcome.
 * What the store refuses is not away: a failure that says so takes its place, at once.
 * @returns undefined when the outcome is nobody's any more
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
      // Even the small one is refused: whoever did that may undo it, and nothing is gained by asking twice a second.
      if (refusal) pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }
  return undefined;
}
