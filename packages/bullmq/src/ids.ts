/** A job of BullMQ: its queue there, and its id in it. */
export interface JobRef {
  readonly queue: string;
  readonly id: string;
}

const WORKFLOWS = "@workflows";

/** BullMQ's name of a queue. No name of ours holds an "@", and BullMQ's hold no colon. */
export function toQueue(queue: string, lane: "task" | "workflow"): string {
  return queue.replaceAll(":", "@_") + (lane === "workflow" ? WORKFLOWS : "");
}

/** Our name of a BullMQ queue. */
export function fromQueue(queue: string): string {
  return (queue.endsWith(WORKFLOWS) ? queue.slice(0, -WORKFLOWS.length) : queue).replaceAll("@_", ":");
}

export function isWorkflowQueue(queue: string): boolean {
  return queue.endsWith(WORKFLOWS);
}

/** A run's id is its BullMQ queue and job id, as they follow each other in a Redis key. */
export function toRunId({ queue, id }: JobRef): string {
  return `${queue}:${id}`;
}

/** Undefined for what can be no run id. */
export function toRef(runId: string): JobRef | undefined {
  const at = runId.indexOf(":");
  // PostgreSQL takes no text with a null character, and no id of ours has one.
  return at < 1 || at === runId.length - 1 || runId.includes(":", at + 1) || runId.includes("\u0000")
    ? undefined
    : { queue: runId.slice(0, at), id: runId.slice(at + 1) };
}
