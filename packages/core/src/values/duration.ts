import { InvalidArgumentError } from "./errors.ts";
import { show } from "./show.ts";

type Unit = "ms" | "s" | "m" | "h" | "d";

/** Milliseconds, or a number with a unit: `"500ms"`, `"30s"`, `"5m"`, `"2h"`, `"7d"`. */
export type Duration = number | `${number}${Unit}`;

const UNIT_MS: Record<Unit, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const PATTERN = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;

/**
 * A duration in milliseconds.
 * @throws InvalidArgumentError naming the value and the place
 */
export function parseDuration(duration: Duration, where: string): number {
  const ms = millisecondsOf(duration);
  if (ms === undefined) {
    throw new InvalidArgumentError(
      `${where} is ${show(duration)}; give milliseconds as a number, or text like "500ms", "30s", "5m", "2h", "7d".`,
    );
  }
  if (ms > MAX_DURATION_MS) {
    throw new InvalidArgumentError(`${where} is ${show(duration)}; give at most 100 years, which is ${MAX_DURATION_MS} ms.`);
  }
  return Math.ceil(ms);
}

function millisecondsOf(duration: unknown): number | undefined {
  if (typeof duration === "number") return duration >= 0 ? duration : undefined;
  const match = typeof duration === "string" ? PATTERN.exec(duration) : null;
  return match ? Number(match[1]) * UNIT_MS[match[2] as Unit] : undefined;
}

/** 100 years. Any time within it is a whole number of milliseconds in every engine; a longer one is surely a mistake in the unit. */
export const MAX_DURATION_MS = 36_525 * 86_400_000;

/** The longest wait that a timer of Node can hold; a longer one fires at once. */
export const MAX_TIMER_MS = 2_147_483_647;
