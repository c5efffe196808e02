import type { DefinitionSpec, RunRequest } from "@task-backend/core/adapter";

/*
 * Workers are chosen by labels: one for each queue that a worker serves, and one for each version of a workflow that it has.
 */

export function queueLabel(queue: string): string {
  return `queue:${queue}`;
}

export function versionLabel({ name, version }: Pick<DefinitionSpec, "name" | "version">): string {
  return `workflow:${name}@${version}`;
}

/** What a worker must have to run it. */
export function labelsOf({ name, queue, version }: Pick<RunRequest, "name" | "queue" | "version">): string[] {
  return [queueLabel(queue), ...(version === undefined ? [] : [versionLabel({ name, version })])];
}
