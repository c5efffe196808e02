import type { JobsOptions } from "bullmq";

/**
 * Job options of BullMQ for one definition or submission. They are passed through and go before ours. Options that core decides
 * (ids, attempts, delay, priority, parents, repetition, retention) are excluded.
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

// Without this export the file would declare a new module of that name, and not extend the existing one.
export type { NativeOptions } from "@task-backend/core";

declare module "@task-backend/core" {
  interface NativeOptions {
    bullmq?: BullmqNativeOptions;
  }
}
