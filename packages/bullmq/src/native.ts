import type { JobsOptions } from "bullmq";

/**
 * Job options of BullMQ for one definition or submission, passed through over ours. Those that decide what core decides
 * (ids, attempts, delay, priority, parents, repetition, retention) are not among them.
 */
export type BullmqNativeOptions = Omit<
  JobsOptions,
  | "jobId"
  | "attempts"
  | "backoff"
  | "delay"
  | "priority"
  | "lifo"
  | "parent"
  | "repeat"
  | "repeatJobKey"
  | "deduplication"
  | "timestamp"
  | "failParentOnFailure"
  | "continueParentOnFailure"
  | "ignoreDependencyOnFailure"
  | "removeDependencyOnFailure"
  | "removeOnComplete"
  | "removeOnFail"
>;

// Without it this file would declare a module of that name, rather than add to it.
export type { NativeOptions } from "@task-backend/core";

declare module "@task-backend/core" {
  interface NativeOptions {
    bullmq?: BullmqNativeOptions;
  }
}
