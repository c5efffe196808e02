import type { NativeOptions } from "@task-backend/core";
import type { RunRequest } from "@task-backend/core/adapter";
import type { ActivityOptions, WorkflowStartOptions } from "@temporalio/client";

/**
 * Temporal's own options for one definition or submission, passed through over ours. What the portable options decide
 * (ids and their policies, task queue, arguments, delay, priority) is not among them. Inside a workflow they travel as JSON.
 */
export interface TemporalNativeOptions {
  /** What a name that is known by a `taskRef` only is in Temporal. Default `activity`, which is also what a worker of ours asks first. */
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
