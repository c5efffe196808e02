import type { DefinitionSet } from "../define/definition-set.ts";
import { cancelledRecord, errorRecord, toErrorRecord, type ErrorRecord } from "../values/error-record.ts";
import { invalidOutput, RELEASE_MS } from "../work/execute-task.ts";
import type { Logger } from "../values/log.ts";
import { Lru } from "../values/lru.ts";
import type { RunId, Tick, TickResult } from "../port/port.ts";
import type { PayloadCheck } from "../submit/requirements.ts";
import { LiveRun } from "./live-run.ts";

export interface AdvanceOptions {
  readonly definitions: DefinitionSet;
  readonly check: PayloadCheck;
  readonly log: Logger;
  /** How many live runs are kept; others are replayed when their next tick comes. Default 2,000. */
  readonly maxLiveRuns?: number;
  /** Called with the id of a run that went on outside of a tick. */
  readonly onStray?: (id: RunId) => void;
  /** Milliseconds since 1970. Default: the clock. */
  readonly now?: () => number;
}

/** Takes workflow runs further, one tick at a time. Knows nothing of any engine. */
export interface Advance {
  readonly advance: (tick: Tick) => Promise<TickResult>;
  readonly evict: (id: RunId) => void;
}

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;

export function createAdvance(options: AdvanceOptions): Advance {
  const { definitions, check, log, maxLiveRuns = 2_000, now = Date.now } = options;
  const live = new Lru<RunId, LiveRun>(maxLiveRuns);

  const advance = async (tick: Tick): Promise<TickResult> => {
    const definition = definitions.find(tick.name, tick.version);
    if (definition?.kind !== "workflow") return { do: "release", delayMs: RELEASE_MS };
    let run = live.get(tick.id);
    if (tick.from === 0 && run?.position !== 0) {
      run = new LiveRun(definition, tick, { definitions, check, log, now });
      live.set(tick.id, run);
    }
    if (!run || run.position < tick.from || run.position > tick.from + tick.entries.length) return { do: "needJournal" };
    // What was fed by a tick whose answer got lost is not fed again.
    const skip = run.position - tick.from;
    await run.feed(tick.entries.slice(skip), run.position, tick.seen);
    const result = answer(run, tick);
    if (result.do !== "wait") live.delete(tick.id);
    return result;
  };

  const answer = (run: LiveRun, tick: Tick): TickResult => {
    if (run.fault) return halt(run.fault, run, tick);
    if (run.ended) return settle(run, tick, run.ended);
    if (!run.waiting) return halt(stalled(tick), run, tick);
    const commands = run.commandsFrom(tick.commandsSeen);
    return commands ? { do: "wait", commands } : { do: "needJournal" };
  };

  const settle = (run: LiveRun, tick: Tick, ended: NonNullable<LiveRun["ended"]>): TickResult => {
    if (run.cancelled) return cancelled(tick);
    if ("thrown" in ended) return { do: "settle", status: "failed", error: { ...toErrorRecord(ended.thrown), retryable: false } };
    try {
      return { do: "complete", output: check(ended.output, `output of workflow "${tick.name}"`) };
    } catch (thrown) {
      return { do: "settle", status: "failed", error: invalidOutput(thrown) };
    }
  };

  /** A run that cannot go on with this code waits for other code, unless it was cancelled. */
  const halt = (error: ErrorRecord, run: LiveRun, tick: Tick): TickResult => {
    log.warn(error.message, { run: tick.id, workflow: tick.name, code: error.code });
    if (run.cancelled) return cancelled(tick, error);
    return { do: "retry", delayMs: Math.min(RETRY_FIRST_MS * 2 ** tick.retries, RETRY_MAX_MS), error };
  };

  return { advance, evict: (id) => live.delete(id) };
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
