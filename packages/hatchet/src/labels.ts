import type { DefinitionSpec, RunRequest } from "@task-backend/core/adapter";

/*
 * Labels choose the workers of a run: a worker has one for each of its queues, and one for each version of a workflow.
 */

export function queueLabel(queue: string): string {
  return `queue:${queue}`;
}

export function versionLabel({ name, version }: Pick<DefinitionSpec, "name" | "version">): string {
  return `workflow:${name}@${version}`;
}

/** The labels that a worker needs to run it. */
export function labelsOf({ name, queue, version }: Pick<RunRequest, "name" | "queue" | "version">): string[] {
  return [queueLabel(queue), ...(version === undefined ? [] : [versionLabel({ name, version })])];
}
