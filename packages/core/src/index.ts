export { createBackend, type BackendOptions, type Submission, type SubmitOptions, type TaskBackend } from "./submit/backend.ts";
export { chain, type ChainOptions } from "./define/chain.ts";
export { readConfiguration, type Configuration, type ConfigurationInput } from "./config/configuration.ts";
export { defineConfig, type ConfigFile } from "./config/config-file.ts";
export { dag, type DagNodes } from "./define/dag.ts";
export type { Definition, Runnable, TaskDefinition, TaskPolicy, TaskRef, WorkflowDefinition } from "./define/definition.ts";
export type { Duration } from "./values/duration.ts";
export type { ErrorRecord } from "./values/error-record.ts";
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
} from "./values/errors.ts";
export { getBackend, type GetBackendOptions } from "./config/get-backend.ts";
export type { Headers, Json } from "./values/json.ts";
export { loadDefinitions, type LoadedModule } from "./config/load-definitions.ts";
export { silentLogger, stderrLogger, type LogFields, type Logger } from "./values/log.ts";
export type { NativeOptions } from "./define/native.ts";
export type { Capabilities, Feature, Level, RunStatus } from "./port/port.ts";
export { PRIORITIES, type Priority } from "./values/priority.ts";
export type { RunResult, TaskResult, TaskStatus } from "./submit/result.ts";
export type { RetryOptions, RetryPolicy } from "./define/retry.ts";
export type { Run, SignalOptions, WaitOptions } from "./submit/run.ts";
export type { AttemptEvent } from "./work/runtime.ts";
export { defineTask, taskRef, type TaskContext } from "./define/task.ts";
export { workerName, type Worker, type WorkerOptions } from "./work/worker.ts";
export { defineWorkflow, type StepOptions, type WorkflowContext } from "./define/workflow.ts";
