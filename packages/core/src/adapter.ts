/** For authors of adapters: the port, and the pieces of core that adapters share. */
export * from "./port.ts";
export { createDrive, type JournalSlice, type JournalStore, type WorkflowRun } from "./drive.ts";
export { cancelledRecord, errorRecord, toErrorRecord, type ErrorRecord } from "./error-record.ts";
export { definitionKey } from "./definition.ts";
export { MAX_TIMER_MS, parseDuration, type Duration } from "./duration.ts";
export { BackendUnavailableError, ConfigurationError, TaskBackendError, TaskCancelledError, UnsupportedCapabilityError } from "./errors.ts";
export { Interruption } from "./interruption.ts";
export type { Headers, Json } from "./json.ts";
export type { Logger } from "./log.ts";
export { mapInLanes } from "./map-in-lanes.ts";
export { PRIORITIES, type Priority } from "./priority.ts";
export type { RetryPolicy } from "./retry.ts";
export { redactUrl } from "./redact.ts";
export { loadAdapter } from "./load-adapter.ts";
export { withTimeout } from "./with-timeout.ts";
export type { Configuration } from "./configuration.ts";
