import type { Priority } from "@task-backend/core/adapter";

/*
 * The options with which the client and the interpreter schedule tasks. Bundled for the sandbox, so it imports only types.
 */

/** Core decides when an attempt is over; the engine's own limits are so wide that they are never reached. */
const NET = "3650 days";
const LEVELS: Readonly<Record<Priority, number>> = { urgent: 1, critical: 2, high: 3, normal: 4, low: 5 };

export function priorityOf(priority: Priority): { readonly priorityKey: number } {
  return { priorityKey: LEVELS[priority] };
}

/** Attempts are unlimited for the engine, because no maximum is given. */
export function activityOptions({ priority }: { readonly priority?: Priority }, heartbeatTimeoutMs = 30_000) {
  return {
    startToCloseTimeout: NET,
    heartbeatTimeout: heartbeatTimeoutMs,
    retry: { initialInterval: 1_000, backoffCoefficient: 1, maximumInterval: 1_000 },
    ...(priority && { priority: priorityOf(priority) }),
  } as const;
}
