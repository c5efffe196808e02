import { InvalidArgumentError } from "./errors.ts";

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
  if (typeof duration === "number" && Number.isFinite(duration) && duration >= 0) return Math.ceil(duration);
  const match = typeof duration === "string" ? PATTERN.exec(duration) : null;
  if (!match) {
    throw new InvalidArgumentError(
      `${where} is ${JSON.stringify(duration) ?? String(duration)}; give milliseconds as a number, or text like "500ms", "30s", "5m", "2h", "7d".`,
    );
  }
  return Math.ceil(Number(match[1]) * UNIT_MS[match[2] as Unit]);
}

/** The longest wait one timer of Node can hold; a longer one fires at once. */
export const MAX_TIMER_MS = 2_147_483_647;
