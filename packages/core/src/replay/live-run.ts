import { setImmediate as macrotask } from "node:timers/promises";
import type { DefinitionSet } from "../define/definition-set.ts";
import { isBranded, type Runnable, type WorkflowDefinition } from "../define/definition.ts";
import { parseDuration, type Duration } from "../values/duration.ts";
import { errorRecord, toErrorRecord, type ErrorRecord } from "../values/error-record.ts";
import { InvalidArgumentError, TaskCancelledError, TaskFailedError, TaskTimedOutError, WaitTimeoutError } from "../values/errors.ts";
import type { Headers, Json } from "../values/json.ts";
import { withFields, type Logger } from "../values/log.ts";
import type { Command, JournalEntry, StepOutcome, Tick } from "../port/port.ts";
import { runRequest } from "../submit/request.ts";
import type { PayloadCheck } from "../submit/requirements.ts";
import { parseInput } from "../define/schema.ts";
import { checkHeadersSize } from "../define/checks.ts";
import { checkStepOptions, checkWait, type StepOptions, type WorkflowContext } from "../define/workflow.ts";
import { fromStep } from "../values/origin.ts";
import { inRun } from "../work/run-scope.ts";
import { cancelKey, describeCall, differenceOf, runKey, sleepKey, waitKey } from "./call-keys.ts";
import { seededRandom } from "./random.ts";

/** A command before it is numbered. Distributes over the union. */
type Operation<C = Command> = C extends unknown ? Omit<C, "n" | "key"> : never;

/** A call of the function that has no outcome yet. */
interface Pending {
  readonly kind: "run" | "sleep" | "await";
  readonly name: string;
  readonly timeoutMs?: number;
  /** The round in which the wait was made, if it goes before the waits of earlier rounds. */
  readonly newestOf?: number;
  /** How many entries had been handed to the function when it made the call. */
  readonly round: number;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

export interface LiveRunContext {
  readonly definitions: DefinitionSet;
  readonly check: PayloadCheck;
  readonly log: Logger;
  readonly now: () => number;
  /** Called when the function goes on outside of a tick. That happens only after it waited for something that is not a wf call. */
  readonly onStray: () => void;
}

/**
 * A workflow function in flight. It is fed journal entries; the function's calls become numbered commands.
 * A call that the journal already holds is only compared with its record.
 */
export class LiveRun {
  /** The number of entries fed so far. */
  position = 0;
  /** Set when the function has ended. */
  ended: { readonly output: unknown } | { readonly thrown: unknown } | undefined;
  /** Set when the function made another call than the record has. The run then cannot go on here. */
  fault: ErrorRecord | undefined;
  cancelled = false;
  /** Set when a signal came after the function had ended. */
  missedSignal = false;

  readonly #workflow: WorkflowDefinition;
  readonly #context: LiveRunContext;
  readonly #tick: Tick;
  readonly #pending = new Map<number, Pending>();
  readonly #signals = new Map<string, Json[]>();
  /** The keys of the issued commands, by number. `#recorded` has those of the journal. */
  readonly #issued: string[] = [];
  readonly #recorded: string[] = [];
  #commands: Command[] = [];
  #nowMs: number;
  #round = 0;
  #started = false;
  #feeding = false;
  #replaying = true;

  constructor(workflow: WorkflowDefinition, tick: Tick, context: LiveRunContext) {
    this.#workflow = workflow;
    this.#context = context;
    this.#tick = tick;
    this.#nowMs = tick.startedAtMs;
  }

  /** Whether the function waits for something that an entry can bring. */
  get waiting(): boolean {
    return this.#pending.size > 0;
  }

  /** Hands the entries to the function in order; each one has its full effect before the next. */
  async feed(entries: readonly JournalEntry[], from: number, seen: number): Promise<void> {
    this.#feeding = true;
    for (const entry of entries) if (entry.type === "command") this.#record(entry.n, entry.key);
    if (!this.#started) {
      this.#started = true;
      this.#replaying = seen > 0 || this.#recorded.length > 0;
      await this.#start();
    }
    for (const [index, entry] of entries.entries()) {
      if (this.fault) break;
      this.position = from + index + 1;
      if (entry.type === "command") continue;
      this.#replaying = from + index < seen;
      this.#deliver(entry);
      // Lets every promise that the entry settled run to its next call before the next entry.
      await macrotask();
    }
    this.#feeding = false;
    if (!this.fault && this.#recorded.length > this.#issued.length) {
      const missing = this.#recorded[this.#issued.length] as string;
      this.#misses(`the record goes on with ${describeCall(missing)}`);
    }
  }

  /** Sets the fault for a recorded call that the function has not made; the message says what the function did instead. */
  #misses(recorded: string): void {
    const threw = this.ended !== undefined && "thrown" in this.ended;
    const instead = threw ? "has thrown instead" : this.ended ? "has ended" : "does not ask for it";
    this.#differs(
      `${recorded}, and the function ${instead}`,
      threw ? toErrorRecord((this.ended as { thrown: unknown }).thrown) : undefined,
    );
  }

  /** The commands numbered from `commandsSeen` on; undefined when some of them are no longer in memory. */
  commandsFrom(commandsSeen: number): readonly Command[] | undefined {
    const oldest = this.#commands[0]?.n ?? this.#issued.length;
    if (commandsSeen < oldest) return undefined;
    this.#commands = this.#commands.filter((command) => command.n >= commandsSeen);
    return this.#commands;
  }

  async #start(): Promise<void> {
    const { id, name, input, headers, version } = this.#tick;
    const random = seededRandom(id);
    const workflow: WorkflowContext = {
      id,
      name,
      version: version ?? this.#workflow.version,
      headers,
      log: this.#quietLog(),
      run: (task, given, options) => this.#run(task, given, options) as Promise<never>,
      sleep: (duration) => this.#sleep(duration),
      waitForSignal: (signal, options) => this.#waitForSignal(signal, options) as Promise<never>,
      now: () => this.#nowMs,
      random,
    };
    let parsed: unknown;
    try {
      parsed = await this.#inScope(() => parseInput(this.#workflow.schema, input, name));
    } catch (thrown) {
      this.ended = { thrown };
      return;
    }
    void this.#inScope(async () => this.#workflow.handler(workflow, parsed as never)).then(
      (output) => this.#end({ output }),
      (thrown: unknown) => this.#end({ thrown }),
    );
    await macrotask();
  }

  #inScope<T>(code: () => T): T {
    return inRun({ id: this.#tick.id, name: this.#tick.name, kind: "workflow", log: this.#context.log }, code);
  }

  #end(ended: NonNullable<LiveRun["ended"]>): void {
    this.ended = ended;
    if (this.#feeding || this.fault) return;
    const how = "thrown" in ended ? "threw" : "ended";
    const cause = "thrown" in ended ? toErrorRecord(ended.thrown) : undefined;
    this.#stray(`it ${how} while the wf calls that it had made were pending, after waiting for something that is not a wf call`, cause);
  }

  /** Sets the fault for a function that went on outside of a tick, and asks for a tick soon to report it. */
  #stray(how: string, cause?: ErrorRecord): void {
    if (this.fault) return;
    this.#differs(how, cause);
    this.#context.onStray();
  }

  #quietLog(): Logger {
    const log = withFields(this.#context.log, { run: this.#tick.id, workflow: this.#tick.name });
    const at =
      (level: keyof Logger): Logger[keyof Logger] =>
      (message, fields) => {
        if (!this.#replaying) log[level](message, fields);
      };
    return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  }

  // ---- the calls of the function ----

  #run(task: Runnable<never, unknown>, given: unknown, options: StepOptions = {}): Promise<unknown> {
    if (!isBranded(task)) {
      return rejected(
        new InvalidArgumentError(
          `wf.run in workflow "${this.#tick.name}" was not given a task; give what defineTask, defineWorkflow, chain, dag or taskRef made.`,
        ),
      );
    }
    return guard(() => {
      const where = `step "${task.name}" of workflow "${this.#tick.name}"`;
      checkStepOptions(options, where);
      const input = this.#context.check(given, `input of ${where}`);
      const target = this.#context.definitions.apply(task);
      const { priority = target.priority ?? this.#tick.priority } = options;
      const run = runRequest(target, input, { ...options, priority, headers: this.#headers(options.headers, where) });
      return this.#call({ kind: "run", name: task.name }, runKey(task.name, input), { do: "run", run });
    }, task.name);
  }

  #headers(own: Headers | undefined, where: string): Headers {
    if (own === undefined) return this.#tick.headers;
    const headers = this.#context.check({ ...this.#tick.headers, ...own }, `headers of ${where}`) as Headers;
    checkHeadersSize(headers, where);
    return headers;
  }

  #sleep(duration: Duration): Promise<void> {
    return guard(() => {
      const ms = parseDuration(duration, `wf.sleep in workflow "${this.#tick.name}"`);
      return this.#call({ kind: "sleep", name: "sleep" }, sleepKey(ms), {
        do: "sleep",
        untilMs: this.#context.now() + ms,
      }) as Promise<void>;
    });
  }

  #waitForSignal(signal: string, options: { timeout?: Duration } = {}): Promise<unknown> {
    return guard(() => {
      checkWait(signal, options);
      const { timeout } = options;
      const timeoutMs = timeout === undefined ? undefined : parseDuration(timeout, `The timeout of wf.waitForSignal("${signal}")`);
      const kept = this.#signals.get(signal)?.shift();
      if (kept !== undefined) {
        // The signal is already here. The wait is recorded like any other, but the engine has nothing to time.
        this.#issue(waitKey(signal, timeoutMs), { do: "await", signal });
        return Promise.resolve(kept);
      }
      const newest = this.#goesFirst(signal, timeoutMs);
      const call = { kind: "await", name: signal, ...(timeoutMs !== undefined && { timeoutMs }), ...(newest && { newestOf: this.#round }) };
      return this.#call(call as Omit<Pending, "resolve" | "reject" | "round">, waitKey(signal, timeoutMs, newest), {
        do: "await",
        signal,
        ...(timeoutMs !== undefined && { untilMs: this.#context.now() + timeoutMs }),
      });
    });
  }

  /**
   * Whether a new wait goes before the open waits for the same signal. The older waits are most often losers of a race, whose promises
   * nobody awaits any more, and a signal for them would be lost. Waits of one round are served in the order in which they were made.
   * A wait that was recorded before this rule existed keeps its recorded order.
   */
  #goesFirst(signal: string, timeoutMs: number | undefined): boolean {
    const older = [...this.#pending].find(([, call]) => call.kind === "await" && call.name === signal && call.round < this.#round);
    const n = this.#issued.length;
    if (!older || this.#recorded[n] === waitKey(signal, timeoutMs)) return false;
    this.#quietLog().warn(
      `Workflow "${this.#tick.name}" waits for signal "${signal}" with call ${n} while call ${older[0]}, which it made before, still does. ` +
        `The next signal goes to call ${n}; one that comes between two such waits goes to the older, also when that has lost a race: ` +
        "keep its promise and race it again.",
    );
    return true;
  }

  /** Numbers the operation, compares it with the record, and waits for its outcome. */
  #call(call: Omit<Pending, "resolve" | "reject" | "round">, key: string, operation: Operation): Promise<unknown> {
    const n = this.#issue(key, operation);
    return quiet(new Promise((resolve, reject) => this.#pending.set(n, { ...call, round: this.#round, resolve, reject })));
  }

  #issue(key: string, operation: Operation): number {
    const n = this.#issued.push(key) - 1;
    const recorded = this.#recorded[n];
    if (!this.#feeding) {
      this.#stray(`it asked for ${describeCall(key)} after waiting for something that is not a wf call`);
    } else if (recorded === undefined) {
      this.#commands.push({ n, key, ...operation });
    } else if (recorded !== key) {
      this.#differs(differenceOf(n, key, recorded));
    }
    return n;
  }

  #record(n: number, key: string): void {
    this.#recorded[n] = key;
    const issued = this.#issued[n];
    if (issued !== undefined && issued !== key) this.#differs(differenceOf(n, issued, key));
  }

  #differs(how: string, cause?: ErrorRecord): void {
    const { name, version } = this.#tick;
    const message =
      `Replay of workflow "${name}"${version === undefined ? "" : ` version "${version}"`} differs from its record: ${how}. ` +
      "Between wf calls use no clock, randomness or I/O; give changed steps a new version, or run the code that fits.";
    this.fault ??= { ...errorRecord("NonDeterminismError", "NON_DETERMINISM", message, true), ...(cause && { cause }) };
  }

  // ---- the entries of the journal ----

  #deliver(entry: Exclude<JournalEntry, { type: "command" }>): void {
    this.#nowMs = Math.max(this.#nowMs, entry.atMs);
    this.#round++;
    switch (entry.type) {
      case "signal":
        return this.#signal(entry.name, entry.payload);
      case "cancel":
        return this.#cancel();
      case "settled":
        return this.#settle(entry.n, (call) => finish(call, entry.outcome));
      case "fired":
        return this.#settle(entry.n, (call) => {
          if (call.kind === "sleep") call.resolve(undefined);
          else call.reject(replayed(new WaitTimeoutError(`Signal "${call.name}"`, call.timeoutMs ?? 0)));
        });
    }
  }

  #settle(n: number, act: (call: Pending) => void): void {
    const call = this.#pending.get(n);
    this.#pending.delete(n);
    if (call) act(call);
    else if (n >= this.#issued.length) this.#misses(`the record has an outcome of call ${n}`);
  }

  #signal(name: string, payload: Json): void {
    if (this.ended) {
      this.missedSignal = true;
      return;
    }
    const [n, call] = this.#waitFor(name) ?? [];
    if (n !== undefined && call) {
      this.#pending.delete(n);
      if (call.timeoutMs !== undefined) this.#issue(cancelKey(n), { do: "cancel", of: n });
      call.resolve(payload);
      return;
    }
    const kept = this.#signals.get(name);
    if (kept) kept.push(payload);
    else this.#signals.set(name, [payload]);
  }

  /** The open wait that the next signal of this name goes to: the first one of the newest round. */
  #waitFor(name: string): [n: number, call: Pending] | undefined {
    let first: [number, Pending] | undefined;
    for (const [n, call] of this.#pending) {
      if (call.kind !== "await" || call.name !== name) continue;
      if (!first || (call.newestOf ?? -1) > (first[1].newestOf ?? -1)) first = [n, call];
    }
    return first;
  }

  #cancel(): void {
    // A function that has ended is not cancelled: its outcome stands.
    if (this.cancelled || this.ended) return;
    this.cancelled = true;
    const calls = [...this.#pending];
    this.#pending.clear();
    for (const [n, call] of calls) {
      this.#issue(cancelKey(n), { do: "cancel", of: n });
      call.reject(replayed(new TaskCancelledError(call.kind === "run" ? call.name : this.#tick.name)));
    }
  }
}

function finish(call: Pending, outcome: StepOutcome): void {
  if (outcome.status === "completed") return call.resolve(outcome.output);
  if (outcome.status === "cancelled") return call.reject(replayed(new TaskCancelledError(call.name, { step: true })));
  const Failed = outcome.status === "timed_out" ? TaskTimedOutError : TaskFailedError;
  call.reject(replayed(new Failed(call.name, undefined, outcome.error), outcome.error.stack));
}

/** Gives an error the same stack at each replay: the recorded one, or none. */
function replayed<E extends Error>(error: E, recorded?: string): E {
  error.stack = `${error.name}: ${error.message}${recorded === undefined ? "" : `\n    caused by ${recorded}`}`;
  return error;
}

/** Turns a thrown error into a rejection: a bad argument rejects like any failing call, and takes no number. */
function guard<T>(call: () => Promise<T>, step?: string): Promise<T> {
  try {
    return call();
  } catch (thrown) {
    return rejected(step === undefined ? thrown : fromStep(thrown, step));
  }
}

function rejected<T>(thrown: unknown): Promise<T> {
  return quiet(Promise.reject(thrown as Error));
}

/** The loser of a race may reject when nobody awaits it any more; that must not end the process. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
