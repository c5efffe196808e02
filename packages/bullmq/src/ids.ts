/** A job of BullMQ: its BullMQ queue, and its id there. */
export interface JobRef {
  readonly queue: string;
  readonly id: string;
}

const WORKFLOWS = "@workflows";

/** The BullMQ name of a queue. Our names never contain "@", and BullMQ's never contain a colon. */
export function toQueue(queue: string, lane: "task" | "workflow"): string {
  return queue.replaceAll(":", "@_") + (lane === "workflow" ? WORKFLOWS : "");
}

/** The name that we give to a BullMQ queue. */
export function fromQueue(queue: string): string {
  return (queue.endsWith(WORKFLOWS) ? queue.slice(0, -WORKFLOWS.length) : queue).replaceAll("@_", ":");
}

export function isWorkflowQueue(queue: string): boolean {
  return queue.endsWith(WORKFLOWS);
}

/** A run's id is its BullMQ queue and job id, in the same form as in a Redis key. */
export function toRunId({ queue, id }: JobRef): string {
  return `${queue}:${id}`;
}

/** Splits a run id; undefined for an invalid one. */
export function toRef(runId: string): JobRef | undefined {
  const at = runId.indexOf(":");
  // PostgreSQL accepts no text with a null character, and our ids have none.
  return at < 1 || at === runId.length - 1 || runId.includes(":", at + 1) || runId.includes("\u0000")
    ? undefined
    : { queue: runId.slice(0, at), id: runId.slice(at + 1) };
}
