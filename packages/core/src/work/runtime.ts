import type { DefinitionSet } from "../define/definition-set.ts";
import { describeThrown, toErrorRecord, type ErrorRecord } from "../values/error-record.ts";
import { executeTask, RELEASE_MS } from "./execute-task.ts";
import type { Logger } from "../values/log.ts";
import type { Attempt, Capabilities, Decision, TickResult, WorkerRuntime } from "../port/port.ts";
import { createAdvance, RETRY_MAX_MS } from "../replay/advance.ts";
import { specOf } from "../submit/request.ts";
import { payloadCheck, storableFor } from "../submit/requirements.ts";

/** The argument of `onAttempt`: how one attempt of a task, or a workflow run, ended in this worker. */
export interface AttemptEvent {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  readonly kind: "task" | "workflow";
  /** Absent for workflows. */
  readonly attempt?: number;
  readonly outcome: "completed" | "retrying" | "failed" | "timed_out" | "cancelled" | "released";
  /** The duration of the attempt. Absent for workflows. */
  readonly durationMs?: number;
  /** The delay until the next attempt, when `retrying`. */
  readonly delayMs?: number;
  readonly error?: ErrorRecord;
}

export interface RuntimeOptions {
  readonly definitions: DefinitionSet;
  readonly capabilities: Capabilities;
  readonly log: Logger;
  readonly onAttempt?: (event: AttemptEvent) => void;
}

/** Core's side of one worker. */
export function createRuntime({ definitions, capabilities, log, onAttempt }: RuntimeOptions): WorkerRuntime {
  const check = payloadCheck(capabilities);
  const fits = storableFor(capabilities);
  let onStray: (id: string) => void = () => {};
  const { advance, evict } = createAdvance({ definitions, check, log, onStray: (id) => onStray(id) });

  /** Calls the application's hook; an error in it has no effect on the run. */
  const tell = (event: AttemptEvent): void => {
    const failed = (thrown: unknown): void =>
      log.error(`onAttempt failed on the attempt of "${event.name}": ${describeThrown(thrown)}`, { run: event.id });
    try {
      const answer: unknown = onAttempt?.(event);
      if (answer instanceof Promise) answer.catch(failed);
    } catch (thrown) {
      failed(thrown);
    }
  };

  const decide = async (attempt: Attempt): Promise<Decision> => {
    const definition = definitions.find(attempt.name);
    if (definition?.kind !== "task") {
      log.warn(`No task "${attempt.name}" here; the run is released for a worker that has it`, { run: attempt.id, queue: attempt.queue });
      return { do: "release", delayMs: RELEASE_MS };
    }
    return executeTask(definition, attempt, check, log);
  };

  const execute = async (attempt: Attempt): Promise<Decision> => {
    const startedAt = performance.now();
    const known = definitions.find(attempt.name)?.kind === "task";
    const decision = withError(await decide(attempt).catch(failure), fits);
    if (known && attempt.interruption.reason !== "lost") {
      tell({
        id: attempt.id,
        name: attempt.name,
        queue: attempt.queue,
        kind: "task",
        attempt: attempt.attempt,
        durationMs: performance.now() - startedAt,
        ...outcomeOf(decision),
      });
    }
    return decision;
  };

  return {
    definitions: definitions.all.map(specOf),
    log,
    execute,
    advance: async (tick) => {
      const result = withError(await advance(tick).catch(trouble), fits);
      if (result.do !== "wait" && result.do !== "needJournal") {
        tell({ id: tick.id, name: tick.name, queue: tick.queue, kind: "workflow", ...outcomeOf(result) });
      }
      return result;
    },
    evict,
    onStray: (listener) => {
      onStray = listener;
    },
  };
}

/** Settles a run as failed after an unexpected error, so that it costs no other run. */
function failure(thrown: unknown): { do: "settle"; status: "failed"; error: ErrorRecord } {
  return { do: "settle", status: "failed", error: { ...toErrorRecord(thrown), retryable: false } };
}

/** Retries a workflow's tick after an unexpected error, instead of failing the run. */
function trouble(thrown: unknown): TickResult {
  return { do: "retry", delayMs: RETRY_MAX_MS, error: toErrorRecord(thrown) };
}

function withError<R extends { readonly do: string }>(result: R, fits: (error: ErrorRecord) => ErrorRecord): R {
  return "error" in result ? { ...result, error: fits(result.error as ErrorRecord) } : result;
}

type Outcome = Pick<AttemptEvent, "outcome" | "delayMs" | "error">;

function outcomeOf(result: Decision): Outcome {
  switch (result.do) {
    case "complete":
      return { outcome: "completed" };
    case "retry":
      return { outcome: "retrying", delayMs: result.delayMs, error: result.error };
    case "settle":
      return { outcome: result.status, error: result.error };
    case "release":
      return { outcome: "released" };
  }
}
