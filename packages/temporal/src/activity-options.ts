import type { Priority } from "@task-backend/core/adapter";

/*
 * What tasks are scheduled with, from the client and from the interpreter. No imports but types: it is bundled for the sandbox.
 */

/** Core decides when an attempt is over; the engine's own limits are set so wide that they never do. */
const NET = "3650 days";
const LEVELS: Readonly<Record<Priority, number>> = { urgent: 1, critical: 2, high: 3, normal: 4, low: 5 };

export function priorityOf(priority: Priority): { readonly priorityKey: number } {
  return { priorityKey: LEVELS[priority] };
}

/** Attempts are unlimited for the engine: leaving the maximum out is how it is told so. */
export function activityOptions({ priority }: { readonly priority?: Priority }, heartbeatTimeoutMs = 30_000) {
  return {
    startToCloseTimeout: NET,
    heartbeatTimeout: heartbeatTimeoutMs,
    retry: { initialInterval: 1_000, backoffCoefficient: 1, maximumInterval: 1_000 },
    ...(priority && { priority: priorityOf(priority) }),
  } as const;
}
