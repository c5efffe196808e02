import { InvalidArgumentError } from "./errors.ts";
import { show } from "./show.ts";

/** The priorities, from the last served to the first. They are words, because engines disagree on the direction of numbers. */
export const PRIORITIES = ["low", "normal", "high", "critical", "urgent"] as const;

/** How soon a run is claimed among the ready ones in its queue. */
export type Priority = (typeof PRIORITIES)[number];

/** @throws InvalidArgumentError naming the value and the place */
export function parsePriority(priority: Priority | undefined, where: string): Priority {
  if (priority === undefined) return "normal";
  if (PRIORITIES.includes(priority)) return priority;
  throw new InvalidArgumentError(`${where} is ${show(priority)}; the priorities are ${PRIORITIES.join(", ")}.`);
}
