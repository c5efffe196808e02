import { checkPolicies, DefinitionSet } from "../define/definition-set.ts";
import { checkHeaders, checkHeadersSize, checkKey, checkLogger, checkName, checkOptions } from "../define/checks.ts";
import { isBranded, type Definition, type Runnable, type TaskPolicy } from "../define/definition.ts";
import { parseDuration, type Duration } from "../values/duration.ts";
import {
  BackendClosedError,
  BackendUnavailableError,
  InvalidArgumentError,
  RunNotFoundError,
  RunSettledError,
  SubmitManyError,
  UnsupportedCapabilityError,
  WaitTimeoutError,
} from "../values/errors.ts";
import type { Headers } from "../values/json.ts";
import { loadDefinitions, type LoadedModule } from "../config/load-definitions.ts";
import { guardedLogger, stderrLogger, type Logger } from "../values/log.ts";
import type { NativeOptions } from "../define/native.ts";
import type { Adapter, Capabilities, RunRecord, RunRequest } from "../port/port.ts";
import type { Priority } from "../values/priority.ts";
import { checkSubmitOptions, runAtOf, runRequest } from "./request.ts";
import { payloadCheck, requireSupported, type PayloadCheck } from "./requirements.ts";
import { outputOf, toResult, type RunResult } from "./result.ts";
import { createRun, type Run, type SignalOptions } from "./run.ts";
import { parseInput } from "../define/schema.ts";
import { show } from "../values/show.ts";
import { startWorker, type Worker, type WorkerOptions } from "../work/worker.ts";
import { withSignal, withTimeout } from "../values/with-timeout.ts";
import { currentRun } from "../work/run-scope.ts";

/** Options of one submission. Retry policy and timeout belong to the definition. */
export interface SubmitOptions {
  queue?: string;
  priority?: Priority;
  /** A delay from now on. It excludes `runAt`. */
  delay?: Duration;
  runAt?: Date;
  /** Submissions with the same name, queue and key are one run for as long as its record is kept. */
  idempotencyKey?: string;
  headers?: Headers;
  /** Passed to the engine untouched. */
  native?: NativeOptions;
}

/** One item of `submitMany`. */
export interface Submission<In = never, Out = unknown> {
  task: Runnable<In, Out> | string;
  input: In;
  options?: SubmitOptions;
}

export interface BackendOptions {
  /** Default: a logger that writes lines to standard error. */
  log?: Logger;
  /** The time limit of each call to the engine. Default 10 s. The start of a worker makes several calls and may take six times as long. */
  callTimeout?: Duration;
  /** How long settled runs must be readable. Connecting is refused when the engine keeps them for less. */
  retention?: Duration;
  /** The operator's policies by task name. They go before the definitions. */
  tasks?: Readonly<Record<string, TaskPolicy>>;
}

const CALL_TIMEOUT_MS = 10_000;
/** The time limit of a worker's start, in calls: it makes several, and the machine may be busy. */
const START_CALLS = 6;
/** When many runs are submitted together, each group of so many may take the time of one call. */
const SUBMIT_AT_A_TIME = 100;

/** Submits runs, reads them, and starts workers, on any engine. */
export class TaskBackend implements AsyncDisposable {
  /** The capabilities of the connected engine, as observed. */
  readonly capabilities: Capabilities;
  readonly #adapter: Adapter;
  readonly #check: PayloadCheck;
  readonly #log: Logger;
  readonly #callTimeoutMs: number;
  readonly #definitions: DefinitionSet;
  readonly #workers = new Set<Worker>();
  readonly #onClose: () => void;
  /** Workers that are starting or stopping in the background. */
  readonly #starting = new Set<Promise<unknown>>();
  /** Ends the open waits when the backend closes. */
  readonly #waits = new Set<(error: Error) => void>();
  #closing: Promise<void> | undefined;
  /** Set once nothing may use the engine any more. The handlers that `close()` waits for may use it until then. */
  #closed = false;

  /** @internal Use `getBackend` or `createBackend`. */
  constructor(adapter: Adapter, capabilities: Capabilities, options: BackendOptions, onClose: () => void) {
    this.capabilities = capabilities;
    this.#adapter = adapter;
    this.#check = payloadCheck(capabilities);
    this.#log = guardedLogger(options.log ?? stderrLogger());
    this.#callTimeoutMs = parseDuration(options.callTimeout ?? CALL_TIMEOUT_MS, "callTimeout");
    this.#definitions = new DefinitionSet(options.tasks);
    this.#onClose = onClose;
  }

  /**
   * Makes definitions known by name to `submit`, and to the workers started here.
   * @throws InvalidDefinitionError for a second definition of the same name and version
   */
  register(...definitions: readonly Definition[]): this {
    for (const definition of definitions) this.#definitions.add(definition, "register()");
    return this;
  }

  /**
   * Registers the exports of modules: files, globs (`"./tasks/**"`), or packages of tasks. TypeScript is loaded as it is.
   * @param root relative names and packages are resolved from here; default the working folder
   * @returns the definitions that each module exported
   * @throws ConfigurationError, InvalidDefinitionError naming both files of a duplicate
   */
  async load(names: readonly string[], root: string = process.cwd()): Promise<LoadedModule[]> {
    const modules = await loadDefinitions(names, root);
    for (const { source, definitions } of modules) {
      for (const definition of definitions) this.#definitions.add(definition, source);
    }
    return modules;
  }

  /**
   * Resolves once the engine has durably accepted the run. Needs no worker.
   * @throws InvalidInputError, InvalidPayloadError, PayloadTooLargeError, InvalidArgumentError, UnsupportedCapabilityError before any I/O
   * @throws BackendUnavailableError
   */
  submit<In, Out>(task: Runnable<In, Out>, input: NoInfer<In>, options?: SubmitOptions): Promise<Run<Out>>;
  submit<Out = unknown>(name: string, input: unknown, options?: SubmitOptions): Promise<Run<Out>>;
  async submit(task: Runnable<never, unknown> | string, input: unknown, options: SubmitOptions = {}): Promise<Run> {
    const [run] = await this.#submit([{ task, input, options }]);
    return run as Run;
  }

  /**
   * Submits several runs together. Every item is validated before the first one is sent.
   * @throws SubmitManyError when the engine refused some; and the errors of `submit`
   */
  async submitMany<In, Out>(submissions: readonly Submission<In, Out>[]): Promise<Run<Out>[]> {
    if (!Array.isArray(submissions)) throw new InvalidArgumentError(`submitMany was given ${show(submissions)}; give an array.`);
    for (const [index, item] of submissions.entries())
      checkOptions(item, ["task", "input", "options"], `Item ${index} of submitMany`, InvalidArgumentError);
    return (await this.#submit(submissions)) as Run<Out>[];
  }

  /** @throws RunNotFoundError for unknown ids and past the retention; BackendUnavailableError */
  async getResult<Out = unknown>(id: string, _task?: Runnable<never, Out>): Promise<RunResult<Out>> {
    return toResult(await this.#record("getResult", id));
  }

  /** @throws RunNotFoundError, BackendUnavailableError */
  async getRun<Out = unknown>(id: string, _task?: Runnable<never, Out>): Promise<Run<Out>> {
    const { name, queue } = await this.#record("getRun", id);
    return this.#run<Out>({ id, name, queue, deduplicated: false });
  }

  /**
   * Cancels a run: a waiting run never starts; a running one gets its signal aborted; a settled one is unchanged.
   * Resolves when the engine has the request; `output()` of the run tells when the run is cancelled.
   * @throws RunNotFoundError, BackendUnavailableError
   */
  async cancel(id: string): Promise<void> {
    const outcome = await this.#call("cancel", () => this.#adapter.cancel(checkId(id)));
    if (outcome === "unknown") throw new RunNotFoundError(id);
  }

  /**
   * Sends a signal to a workflow run, kept until the workflow waits for it.
   * @throws RunNotFoundError, RunSettledError, InvalidArgumentError when the run is no workflow
   * @throws InvalidPayloadError, PayloadTooLargeError, UnsupportedCapabilityError before any I/O; BackendUnavailableError
   */
  async signal(id: string, name: string, payload?: unknown, options: SignalOptions = {}): Promise<void> {
    checkKey(name, "The name of a signal");
    checkOptions(options, ["dedupeId"], `The options of signal "${name}"`, InvalidArgumentError);
    const { dedupeId } = options;
    if (dedupeId !== undefined) checkKey(dedupeId, `The dedupeId of signal "${name}"`);
    const request = { name, payload: this.#check(payload, `payload of signal "${name}"`), ...(dedupeId !== undefined && { dedupeId }) };
    const outcome = await this.#call("signal", () => this.#adapter.signal(checkId(id), request));
    if (outcome === "unknown") throw new RunNotFoundError(id);
    if (outcome === "settled") throw new RunSettledError(id);
    if (outcome === "not-a-workflow") throw new InvalidArgumentError(`Run "${id}" is a task; only workflows take signals.`);
  }

  /**
   * Starts a worker in this process, for the given queues or those of all registered definitions.
   * @throws InvalidArgumentError, UnsupportedCapabilityError, BackendUnavailableError
   */
  async startWorker(options: WorkerOptions = {}): Promise<Worker> {
    if (this.#closing) throw new BackendClosedError("startWorker");
    const starting = startWorker(
      {
        adapter: this.#adapter,
        definitions: this.#definitions,
        capabilities: this.capabilities,
        log: this.#log,
        call: (name, run) => this.#call(name, run, START_CALLS),
        track: (work) => this.#track(work),
      },
      options,
      () => this.#workers.delete(worker),
    );
    this.#track(starting);
    const worker: Worker = await starting;
    if (this.#closing) {
      await worker.stop({ grace: 0 });
      throw new BackendClosedError("startWorker");
    }
    this.#workers.add(worker);
    return worker;
  }

  #track(work: Promise<unknown>): void {
    this.#starting.add(work);
    void work.catch(() => {}).then(() => this.#starting.delete(work));
  }

  /**
   * Stops the workers started here, each within its grace period, and frees every resource. The handlers that are still running
   * may use the backend until they end; every other call, and every open wait for an output, rejects with BackendClosedError.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#onClose();
    // The outcome of a start that never answers is unknown: only the adapter's own `close` can end it.
    while (this.#starting.size > 0) {
      const starting = Promise.allSettled(this.#starting);
      const late = new Error();
      if ((await withTimeout(starting, this.#callTimeoutMs, () => late).catch(() => late)) === late) break;
    }
    const stopped = await Promise.allSettled([...this.#workers].map((worker) => worker.stop()));
    this.#closed = true;
    for (const end of this.#waits) end(new BackendClosedError("output"));
    await this.#adapter.close();
    const failed = stopped.find((outcome) => outcome.status === "rejected");
    if (failed) throw failed.reason;
  }

  async #submit(
    submissions: readonly { task: Runnable<never, unknown> | string; input: unknown; options?: SubmitOptions }[],
  ): Promise<Run[]> {
    this.#checkOpen("submit");
    const requests = await Promise.all(submissions.map(({ task, input, options = {} }) => this.#request(task, input, options)));
    if (requests.length === 0) return [];
    const outcomes = await this.#call("submit", () => this.#adapter.submit(requests), Math.ceil(requests.length / SUBMIT_AT_A_TIME));
    const accepted: { index: number; id: string }[] = [];
    const rejected: { index: number; error: Exclude<(typeof outcomes)[number], { id: string }>["error"] }[] = [];
    const runs: Run[] = [];
    for (const [index, outcome] of outcomes.entries()) {
      if ("error" in outcome) {
        rejected.push({ index, error: outcome.error });
        continue;
      }
      const { name, queue } = requests[index] as RunRequest;
      accepted.push({ index, id: outcome.id });
      runs.push(this.#run({ id: outcome.id, name, queue, deduplicated: outcome.deduplicated }));
    }
    if (rejected[0]) throw submissions.length === 1 ? rejected[0].error : new SubmitManyError(accepted, rejected);
    return runs;
  }

  async #request(given: Runnable<never, unknown> | string, input: unknown, options: SubmitOptions): Promise<RunRequest> {
    const target = this.#target(given);
    const { name } = target;
    checkSubmitOptions(options, name);
    if ("schema" in target && target.schema) await parseInput(target.schema as never, input, name);
    const json = this.#check(input, `input of "${name}"`);
    const headers = this.#headers(options.headers, name);
    const runAtMs = runAtOf(options, name);
    const request: RunRequest = {
      ...runRequest(target, json, { ...options, headers }),
      ...(runAtMs !== undefined && { runAtMs }),
      ...(options.idempotencyKey !== undefined && { idempotencyKey: options.idempotencyKey }),
      ...(options.native && { native: { ...target.native, ...options.native } }),
    };
    requireSupported(this.capabilities, request);
    return request;
  }

  #headers(headers: Headers | undefined, name: string): Headers {
    if (headers === undefined) return {};
    const checked = this.#check(checkHeaders(headers, `"${name}"`), `headers of "${name}"`) as Headers;
    checkHeadersSize(checked, `"${name}"`);
    return checked;
  }

  /** The definition to submit, with the operator's policy; a name is looked up among the registered definitions. */
  #target(given: Runnable<never, unknown> | string): Runnable<never, unknown> {
    if (typeof given !== "string") {
      if (isBranded(given)) return this.#definitions.apply(given);
      throw new InvalidArgumentError(
        `submit was given ${show(given)} for a task; give what defineTask, defineWorkflow, chain, dag or taskRef made, or a name.`,
      );
    }
    const name = checkName(given, "The name of the task to submit", InvalidArgumentError);
    return this.#definitions.find(name) ?? this.#definitions.apply({ kind: "ref", name });
  }

  #run<Out>(facts: Pick<Run, "id" | "name" | "queue" | "deduplicated">): Run<Out> {
    return createRun<Out>(this, this.#waitFor, facts);
  }

  readonly #waitFor = async (id: string, timeoutMs: number | undefined, signal: AbortSignal | undefined): Promise<unknown> => {
    this.#checkOpen("output");
    signal?.throwIfAborted();
    const late = (): Error => new WaitTimeoutError(`The output of run "${id}"`, timeoutMs as number);
    const unbounded = timeoutMs === undefined && signal === undefined;
    const record = await this.#untilClosed(
      unbounded ? this.#adapter.wait(id, undefined) : withSignal((given) => this.#adapter.wait(id, given), timeoutMs, late, signal),
    );
    if (!record) throw new RunNotFoundError(id);
    return outputOf(record);
  };

  #untilClosed<T>(wait: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waits.add(reject);
      void wait.then(resolve, reject).then(() => this.#waits.delete(reject));
    });
  }

  async #record(call: string, id: string): Promise<RunRecord> {
    const record = await this.#call(call, () => this.#adapter.get(checkId(id)));
    if (!record) throw new RunNotFoundError(id);
    return record;
  }

  /** Limits the time of a call to the engine: it resolves or rejects within the time, whatever the engine's client does. */
  async #call<T>(name: string, run: () => Promise<T>, times = 1): Promise<T> {
    this.#checkOpen(name);
    const { engine, where } = this.capabilities;
    const timeoutMs = times * this.#callTimeoutMs;
    return withTimeout(run(), timeoutMs, () => unavailable(engine, where, name, timeoutMs));
  }

  #checkOpen(call: string): void {
    if (this.#closed || (this.#closing && !currentRun())) throw new BackendClosedError(call);
  }
}

/**
 * Connects a backend over an adapter that you made, for engine options that no variable can hold.
 * @throws BackendUnavailableError when the engine does not answer in time
 * @throws UnsupportedCapabilityError when the engine keeps records for less than `retention`
 * @example
 * const backend = await createBackend(sqlite({ file: "tasks.db" }));
 */
export async function createBackend(adapter: Adapter, options: BackendOptions = {}, onClose: () => void = () => {}): Promise<TaskBackend> {
  try {
    checkBackendOptions(options);
    const timeoutMs = parseDuration(options.callTimeout ?? CALL_TIMEOUT_MS, "callTimeout");
    const late = (): Error => unavailable("the engine", undefined, "connect", timeoutMs);
    const capabilities = await withSignal((signal) => adapter.connect(signal), timeoutMs, late);
    const retentionMs = options.retention === undefined ? 0 : parseDuration(options.retention, "retention");
    if (retentionMs > capabilities.limits.retentionMs) {
      throw new UnsupportedCapabilityError(
        capabilities.engine,
        "retention",
        `settled runs are kept for ${capabilities.limits.retentionMs} ms and retention asks for ${retentionMs} ms; raise it in the engine or ask for less`,
      );
    }
    return new TaskBackend(adapter, capabilities, options, onClose);
  } catch (error) {
    await adapter.close().catch(() => {});
    throw error;
  }
}

function unavailable(engine: string, where: string | undefined, call: string, timeoutMs: number): BackendUnavailableError {
  return new BackendUnavailableError(
    `${engine}${where === undefined ? "" : ` at ${where}`} did not answer ${call} within ${timeoutMs} ms; check that it runs and can be reached.`,
  );
}

function checkId(id: unknown): string {
  // No engine makes an id with a null character, and some servers fail on one.
  if (typeof id === "string" && id !== "" && !id.includes("\0")) return id;
  throw new InvalidArgumentError(`The id of a run is ${show(id)}; give the text that submit returned.`);
}

function checkBackendOptions(options: BackendOptions): void {
  checkOptions(options, ["log", "callTimeout", "retention", "tasks"], "The options of a backend", InvalidArgumentError);
  checkLogger(options.log);
  if (options.tasks !== undefined) checkPolicies(options.tasks);
}
