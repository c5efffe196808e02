import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { DefinitionSet } from "../define/definition-set.ts";
import { checkKey, checkName, checkOptions } from "../define/checks.ts";
import { parseDuration, type Duration } from "../values/duration.ts";
import { InvalidArgumentError } from "../values/errors.ts";
import { withFields, type Logger } from "../values/log.ts";
import type { Adapter, Capabilities, WorkerHandle, WorkerRequest, WorkerRuntime } from "../port/port.ts";
import { show } from "../values/show.ts";
import { requireDefinition } from "../submit/requirements.ts";
import { guardProcess } from "./run-scope.ts";
import { createRuntime, type AttemptEvent } from "./runtime.ts";

export interface WorkerOptions {
  /** Default: the queues of everything registered. */
  queues?: readonly string[];
  /** The number of attempts at a time, in all queues together. Default 10. */
  concurrency?: number;
  /** How long running attempts may go on after `stop()`. Default 30 s. */
  grace?: Duration;
  /** Default: host, queues and a short id. */
  name?: string;
  /** Called after each attempt of a task, and when a workflow run halts or settles. */
  onAttempt?: (event: AttemptEvent) => void;
}

/** A running worker. */
export interface Worker extends AsyncDisposable {
  readonly name: string;
  readonly queues: readonly string[];
  readonly concurrency: number;
  /** Whether the worker is connected and claiming. */
  healthy(): boolean;
  /** Stops claiming. Running attempts may finish within the grace period; the rest are released, uncharged. */
  stop(options?: { grace?: Duration }): Promise<void>;
}

interface WorkerParts {
  readonly adapter: Adapter;
  readonly definitions: DefinitionSet;
  readonly capabilities: Capabilities;
  readonly log: Logger;
  readonly call: <T>(name: string, run: () => Promise<T>) => Promise<T>;
  /** Takes note of work that goes on in the background, so that the backend's close waits for it. */
  readonly track: (work: Promise<void>) => void;
}

export async function startWorker(parts: WorkerParts, options: WorkerOptions, onStop: () => void): Promise<Worker> {
  checkWorkerOptions(options);
  const definitions = parts.definitions.all;
  const queues = [...new Set(options.queues ?? definitions.map((definition) => definition.queue))];
  if (queues.length === 0) throw new InvalidArgumentError("A worker has no queues: register definitions first, or give { queues }.");
  const concurrency = options.concurrency ?? 10;
  if (!Number.isInteger(concurrency) || concurrency < 1)
    throw new InvalidArgumentError(`The concurrency of a worker is ${show(concurrency)}; give a whole number from 1.`);
  const graceMs = parseDuration(options.grace ?? "30s", "The grace of a worker");
  const name = options.name ?? workerName(queues);
  tellUnknownPolicies(parts);

  // Definitions that are registered later belong to later workers.
  const own = parts.definitions.copy();
  const log = withFields(parts.log, { worker: name });
  const { onAttempt } = options;
  const runtime = createRuntime({ definitions: own, capabilities: parts.capabilities, log, ...(onAttempt && { onAttempt }) });
  for (const definition of runtime.definitions) requireDefinition(parts.capabilities, definition);

  // Errors of code that the handlers forgot are caught until the last handler has ended.
  const unguard = guardProcess();
  const handle = await start(parts, { name, queues, concurrency }, runtime).catch((error: unknown) => {
    unguard();
    throw error;
  });
  const stop = async (given: { grace?: Duration } = {}): Promise<void> => {
    checkOptions(given, ["grace"], "The options of stop()", InvalidArgumentError);
    const { grace } = given;
    const givenMs = grace === undefined ? graceMs : parseDuration(grace, "The grace of stop()");
    try {
      await handle.stop(givenMs);
    } finally {
      unguard();
      onStop();
    }
  };
  return { name, queues, concurrency, healthy: () => handle.healthy(), stop, [Symbol.asyncDispose]: () => stop() };
}

/** Starts a worker. If it starts too late for its caller, it is stopped again. */
async function start({ adapter, call, track }: WorkerParts, request: WorkerRequest, runtime: WorkerRuntime): Promise<WorkerHandle> {
  const starting = Promise.resolve().then(() => adapter.startWorker(request, runtime));
  try {
    return await call("startWorker", () => starting);
  } catch (error) {
    track(
      starting.then(
        (late) => late.stop(0),
        () => {},
      ),
    );
    throw error;
  }
}

function checkWorkerOptions(options: WorkerOptions): void {
  const known = ["queues", "concurrency", "grace", "name", "onAttempt"];
  checkOptions(options, known, "The options of a worker", InvalidArgumentError);
  const { queues, name, onAttempt } = options;
  if (queues !== undefined && !Array.isArray(queues))
    throw new InvalidArgumentError(`The queues of a worker are ${show(queues)}; give an array of names.`);
  for (const queue of queues ?? []) checkName(queue, "A queue of a worker", InvalidArgumentError);
  if (name !== undefined) checkKey(name, "The name of a worker");
  if (onAttempt !== undefined && typeof onAttempt !== "function")
    throw new InvalidArgumentError(`The onAttempt of a worker is ${show(onAttempt)}; give a function.`);
}

/** Warns of a policy for an unknown name: a typing error, or a policy for another worker's tasks. */
function tellUnknownPolicies({ definitions, log }: WorkerParts): void {
  for (const { name, similar } of definitions.unknownPolicies) {
    if (similar === undefined) log.info(`This worker has no task "${name}", for which a policy is configured`);
    else log.warn(`This worker has no task "${name}", for which a policy is configured; did you mean "${similar}"?`);
  }
}

/** Host, queues and a short id, for people to tell workers apart. */
export function workerName(queues: readonly string[]): string {
  return `${hostname()}:${queues.join("+").slice(0, 60)}:${randomBytes(3).toString("hex")}`;
}
