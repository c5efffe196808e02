import type { DefinitionSet } from "../define/definition-set.ts";
import { cancelledRecord, errorRecord, toErrorRecord, type ErrorRecord } from "../values/error-record.ts";
import { invalidOutput, RELEASE_MS } from "../work/execute-task.ts";
import type { Logger } from "../values/log.ts";
import { Lru } from "../values/lru.ts";
import type { RunId, Tick, TickResult } from "../port/port.ts";
import type { PayloadCheck } from "../submit/requirements.ts";
import { TaskCancelledError } from "../values/errors.ts";
import { LiveRun } from "./live-run.ts";
import { signalsFirst } from "./signals-first.ts";

export interface AdvanceOptions {
  readonly definitions: DefinitionSet;
  readonly check: PayloadCheck;
  readonly log: Logger;
  /** How many runs are kept live; others are replayed at their next tick. Default 2,000. */
  readonly maxLiveRuns?: number;
  /** Called with the id of a run whose function went on outside of a tick. */
  readonly onStray?: (id: RunId) => void;
  /** The time in milliseconds since 1970. Default: the clock. */
  readonly now?: () => number;
}

/** Executes the ticks of workflow runs. It knows nothing about any engine. */
export interface Advance {
  readonly advance: (tick: Tick) => Promise<TickResult>;
  readonly evict: (id: RunId) => void;
}

const RETRY_FIRST_MS = 500;
export const RETRY_MAX_MS = 30_000;

export function createAdvance(options: AdvanceOptions): Advance {
  const { definitions, check, log, maxLiveRuns = 2_000, now = Date.now, onStray = () => {} } = options;
  const live = new Lru<RunId, LiveRun>(maxLiveRuns);
  /** Runs whose function went on outside of a tick. A replay with this code would do so again, and look healthy until then. */
  const strayed = new Lru<RunId, LiveRun>(maxLiveRuns);
  /** The ticks under way. A second tick of the same run waits for the first. */
  const underWay = new Map<RunId, Promise<TickResult>>();

  const advance = (tick: Tick): Promise<TickResult> => {
    const before = underWay.get(tick.id);
    const answered = before
      ? before.then(
          () => advanceNow(tick),
          () => advanceNow(tick),
        )
      : advanceNow(tick);
    underWay.set(tick.id, answered);
    const forget = (): void => {
      if (underWay.get(tick.id) === answered) underWay.delete(tick.id);
    };
    answered.then(forget, forget);
    return answered;
  };

  const advanceNow = async (tick: Tick): Promise<TickResult> => {
    const definition = definitions.find(tick.name, tick.version);
    if (definition?.kind !== "workflow") return { do: "release", delayMs: RELEASE_MS };
    const stray = strayed.get(tick.id);
    if (stray?.fault) {
      live.delete(tick.id);
      return halt(stray.fault, stray.cancelled || tick.entries.some(({ type }) => type === "cancel"), tick);
    }
    let run = live.get(tick.id);
    if (tick.from === 0 && run?.position !== 0) {
      const fresh = new LiveRun(definition, tick, { definitions, check, log, now, onStray: () => strays(fresh, tick.id) });
      run = fresh;
      live.set(tick.id, run);
    }
    if (!run || run.position < tick.from || run.position > tick.from + tick.entries.length) return { do: "needJournal" };
    // Entries that an earlier tick fed are not fed again, even if the answer of that tick was lost.
    const skip = run.position - tick.from;
    await run.feed(tick.entries.slice(skip), run.position, tick.seen);
    const result = answer(run, tick);
    if (result.do !== "wait") live.delete(tick.id);
    return result;
  };

  const strays = (run: LiveRun, id: RunId): void => {
    // A run that was evicted, or whose last answer was given, is no longer live here.
    if (live.get(id) !== run) return;
    strayed.set(id, run);
    onStray(id);
  };

  const answer = (run: LiveRun, tick: Tick): TickResult => {
    // A run with a fault is fed no further, so its cancellation is looked for in the entries that follow.
    if (run.fault) return halt(run.fault, run.cancelled || tick.entries.some(({ type }) => type === "cancel"), tick);
    if (run.ended && endsOverSignal(run, tick)) return { do: "needJournal", signalsFirst: true };
    if (run.ended) return settle(run, tick, run.ended);
    if (!run.waiting) return halt(stalled(tick), run.cancelled, tick);
    const commands = run.commandsFrom(tick.commandsSeen);
    return commands ? { do: "wait", commands } : { do: "needJournal" };
  };

  const settle = (run: LiveRun, tick: Tick, ended: NonNullable<LiveRun["ended"]>): TickResult => {
    if (run.cancelled) return cancelled(tick, "thrown" in ended ? cleanupFailure(ended.thrown) : undefined);
    if ("thrown" in ended) return { do: "settle", status: "failed", error: { ...toErrorRecord(ended.thrown), retryable: false } };
    try {
      return { do: "complete", output: check(ended.output, `output of workflow "${tick.name}"`) };
    } catch (thrown) {
      return { do: "settle", status: "failed", error: invalidOutput(thrown) };
    }
  };

  /** Retries a run that cannot go on with this code, until a worker has other code. A cancelled run settles at once. */
  const halt = (error: ErrorRecord, isCancelled: boolean, tick: Tick): TickResult => {
    log.warn(error.message, { run: tick.id, workflow: tick.name, code: error.code });
    if (isCancelled) return cancelled(tick, error);
    return { do: "retry", delayMs: Math.min(RETRY_FIRST_MS * 2 ** tick.retries, RETRY_MAX_MS), error };
  };

  return { advance, evict: (id) => live.delete(id) };
}

/** Whether the function ended without a signal that may overtake a timer: it then runs again, with the signal before that timer. */
function endsOverSignal(run: LiveRun, tick: Tick): boolean {
  if (!run.missedSignal || run.cancelled) return false;
  return signalsFirst(tick.entries, Math.max(tick.seen - tick.from, 0)) !== tick.entries;
}

/** The error thrown after the cancellation, if it is not the cancellation itself. */
function cleanupFailure(thrown: unknown): ErrorRecord | undefined {
  return thrown instanceof TaskCancelledError ? undefined : toErrorRecord(thrown);
}

function cancelled(tick: Tick, cause?: ErrorRecord): TickResult {
  const error = cancelledRecord(tick.name);
  return { do: "settle", status: "cancelled", error: cause ? { ...error, cause } : error };
}

function stalled(tick: Tick): ErrorRecord {
  return errorRecord(
    "WorkflowStalledError",
    "WORKFLOW_STALLED",
    `Workflow "${tick.name}" waits for something that is not a wf call, with no wf call pending, so nothing can wake it. ` +
      "Move timers, I/O and other promises into a task and await wf.run, wf.sleep or wf.waitForSignal instead.",
    true,
  );
}
