/** For authors of adapters: the port, and the pieces of core that adapters share. */
export * from "./port/port.ts";
export { createDrive, endsOverSignals, type Answer, type DrivenRun, type JournalSlice, type JournalStore } from "./replay/drive.ts";
export { signalsFirst } from "./replay/signals-first.ts";
export { cancelledRecord, corruptRecord, errorRecord, refusedRecord, toErrorRecord, type ErrorRecord } from "./values/error-record.ts";
export { definitionKey } from "./define/definition.ts";
export { MAX_TIMER_MS, parseDuration, type Duration } from "./values/duration.ts";
export {
  BackendClosedError,
  BackendUnavailableError,
  ConfigurationError,
  TaskBackendError,
  TaskCancelledError,
  UnsupportedCapabilityError,
} from "./values/errors.ts";
export { Interruption } from "./work/interruption.ts";
export type { Headers, Json } from "./values/json.ts";
export type { Logger } from "./values/log.ts";
export { mapInLanes } from "./values/map-in-lanes.ts";
export { PRIORITIES, type Priority } from "./values/priority.ts";
export type { RetryPolicy } from "./define/retry.ts";
export { redactUrl } from "./config/redact.ts";
export { loadAdapter } from "./config/load-adapter.ts";
export { withTimeout } from "./values/with-timeout.ts";
export type { Configuration } from "./config/configuration.ts";
/** The pieces that every adapter needs. */
export { optionMs, parseAdapterOptions } from "./kit/adapter-options.ts";
export { Intervals } from "./kit/intervals.ts";
export { Shutdown, type ShutdownSteps } from "./kit/shutdown.ts";
export { storeOutcome, type OutcomeOptions } from "./kit/store-outcome.ts";
export { Waiters } from "./kit/waiters.ts";
