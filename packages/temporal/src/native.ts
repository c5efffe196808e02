import type { NativeOptions } from "@task-backend/core";
import type { RunRequest } from "@task-backend/core/adapter";
import type { ActivityOptions, WorkflowStartOptions } from "@temporalio/client";

/**
 * Temporal's own options for one definition or submission. They are passed through and go before ours. Options that core decides
 * (ids and their policies, task queue, arguments, delay, priority) are excluded. Inside a workflow they travel as JSON.
 */
export interface TemporalNativeOptions {
  /** The kind in Temporal of a name that is known by a `taskRef` only. Default `activity`, whose worker then finds the actual kind. */
  as?: "activity" | "workflow";
  activity?: Omit<ActivityOptions, "id" | "args" | "taskQueue" | "startDelay" | "priority" | "idReusePolicy" | "idConflictPolicy">;
  workflow?: Omit<
    WorkflowStartOptions,
    "workflowId" | "args" | "taskQueue" | "startDelay" | "priority" | "workflowIdReusePolicy" | "workflowIdConflictPolicy" | "cronSchedule"
  >;
}

declare module "@task-backend/core" {
  interface NativeOptions {
    temporal?: TemporalNativeOptions;
  }
}

export function nativeOf({ native }: RunRequest): TemporalNativeOptions {
  return (native as NativeOptions | undefined)?.temporal ?? {};
}

/** Whether a run is a workflow execution, as far as its submitter knows. */
export function isWorkflow(run: RunRequest): boolean {
  return run.kind === "workflow" || (!run.definition && nativeOf(run).as === "workflow");
}
