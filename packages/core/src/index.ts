export { createBackend, type BackendOptions, type Submission, type SubmitOptions, type TaskBackend } from "./backend.ts";
export { chain, type ChainOptions } from "./chain.ts";
export { defineConfig, readConfiguration, type ConfigFile, type Configuration, type ConfigurationInput } from "./configuration.ts";
export { dag, type DagNodes } from "./dag.ts";
export type { Definition, Runnable, TaskDefinition, TaskPolicy, TaskRef, WorkflowDefinition } from "./definition.ts";
export type { Duration } from "./duration.ts";
export type { ErrorRecord } from "./error-record.ts";
export {
  AttemptInterruptedError,
  AttemptTimeoutError,
  BackendClosedError,
  BackendUnavailableError,
  ConfigurationError,
  InvalidArgumentError,
  InvalidDefinitionError,
  InvalidInputError,
  InvalidPayloadError,
  NonRetryableError,
  PayloadTooLargeError,
  RetryableError,
  RunNotFoundError,
  RunSettledError,
  SubmitManyError,
  TaskBackendError,
  TaskCancelledError,
  TaskFailedError,
  TaskTimedOutError,
  UnsupportedCapabilityError,
  WaitTimeoutError,
  type InputIssue,
} from "./errors.ts";
export { getBackend, type GetBackendOptions } from "./get-backend.ts";
export type { Headers, Json } from "./json.ts";
export { loadDefinitions, type LoadedModule } from "./load-definitions.ts";
export { silentLogger, stderrLogger, type LogFields, type Logger } from "./log.ts";
export type { NativeOptions } from "./native.ts";
export type { Capabilities, Feature, Level } from "./port.ts";
export { PRIORITIES, type Priority } from "./priority.ts";
export type { TaskResult, TaskStatus } from "./result.ts";
export type { RetryOptions, RetryPolicy } from "./retry.ts";
export type { Run, SignalOptions, WaitOptions } from "./run.ts";
export type { AttemptEvent } from "./runtime.ts";
export { defineTask, taskRef, type TaskContext } from "./task.ts";
export { workerName, type Worker, type WorkerOptions } from "./worker.ts";
export { defineWorkflow, type StepOptions, type WorkflowContext } from "./workflow.ts";
