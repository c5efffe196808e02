import type { DefinitionSet } from "../define/definition-set.ts";
import type { ErrorRecord } from "../values/error-record.ts";
import { executeTask, RELEASE_MS } from "./execute-task.ts";
import type { Logger } from "../values/log.ts";
import type { Attempt, Capabilities, Decision, WorkerRuntime } from "../port/port.ts";
import { createAdvance } from "../replay/advance.ts";
import { specOf } from "../submit/request.ts";
import { payloadCheck } from "../submit/requirements.ts";

/** What `onAttempt` is told: how one attempt of a task, or a workflow run, ended in this worker. */
export interface AttemptEvent {
  readonly id: string;
  readonly name: string;
  readonly queue: string;
  readonly kind: "task" | "workflow";
  /** Absent for workflows. */
  readonly attempt?: number;
  readonly outcome: "completed" | "retrying" | "failed" | "timed_out" | "cancelled" | "released";
  /** Of the attempt. Absent for workflows. */
  readonly durationMs?: number;
  /** Until the next attempt, when `retrying`. */
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
  let onStray: (id: string) => void = () => {};
  const { advance, evict } = createAdvance({ definitions, check, log, onStray: (id) => onStray(id) });

  const execute = async (attempt: Attempt): Promise<Decision> => {
    const definition = definitions.find(attempt.name);
    if (definition?.kind !== "task") {
      log.warn(`No task "${attempt.name}" here; the run is put back for a worker that has it`, { run: attempt.id, queue: attempt.queue });
      return { do: "release", delayMs: RELEASE_MS };
    }
    const startedAt = performance.now();
    const decision = await executeTask(definition, attempt, check, log);
    if (onAttempt && attempt.interruption.reason !== "lost") {
      onAttempt({
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
      const result = await advance(tick);
      if (onAttempt && result.do !== "wait" && result.do !== "needJournal") {
        onAttempt({ id: tick.id, name: tick.name, queue: tick.queue, kind: "workflow", ...outcomeOf(result) });
      }
      return result;
    },
    evict,
    onStray: (listener) => {
      onStray = listener;
    },
  };
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
