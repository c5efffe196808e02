import type { Answer, Command, DrivenRun, JournalSlice, JournalStore, RunRequest } from "@task-backend/core/adapter";
import { cancelledFailure, toJob, toRef, toRunId, type FailureRecord } from "./mapping.ts";
import type { Claim, Ending, Lane, Store, TickRecord, WorkflowState } from "./store.ts";

/** What a tick asked for and this worker has yet to carry out; on record until it is done. */
interface Outbox {
  readonly runs: readonly (readonly [n: number, run: RunRequest])[];
  readonly cancels: readonly number[];
}

/** Beyond the end of any journal. */
const NO_ENTRIES = 2 ** 31 - 1;

/** A run for a tick, with the claim of its job. */
export interface ClaimedRun extends DrivenRun {
  readonly lane: Lane;
  readonly claim: Claim;
  /** On record so far. */
  commands: number;
}

/**
 * The journals of workflow runs. Steps, timers and signals append to them as they happen, in the store's atomic steps;
 * commands are put on record before they are carried out, and carried out again by the next tick should this one be lost.
 */
export class WorkflowJournal implements JournalStore<ClaimedRun> {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Before a tick. Answers how many ticks in a row were lost with their worker. */
  async begin(run: ClaimedRun): Promise<number | "settled"> {
    const { claim, version } = run;
    if (claim.json.stalledCounter === 0) return 0;
    // A worker may have been lost while it was settling the run or carrying commands out.
    const state = await this.#store.load(claim, NO_ENTRIES, version);
    if (state === "lost") return "settled";
    if (state.ending !== undefined) {
      await this.#settle(run, JSON.parse(state.ending) as Ending);
      return "settled";
    }
    const job = await this.#store.get(claim.ref);
    return claim.json.stalledCounter - (job?.workflow?.stalls ?? 0);
  }

  async load(run: ClaimedRun, from: number): Promise<JournalSlice | "lost"> {
    const state: WorkflowState | "lost" = await this.#store.load(run.claim, from, run.version);
    if (state === "lost") return "lost";
    if (state.outbox !== undefined) await this.#carryOut(run, JSON.parse(state.outbox) as Outbox);
    run.commands = state.commands;
    return {
      entries: state.entries,
      seen: state.seen,
      commandsSeen: state.commands,
      retries: state.retries,
      startedAtMs: state.startedAtMs,
      ...(state.version !== undefined && { version: state.version }),
    };
  }

  async commit(run: ClaimedRun, seen: number, result: Answer): Promise<"done" | "more" | "lost"> {
    switch (result.do) {
      case "wait":
        return this.#wait(run, seen, result.commands);
      case "complete":
        return this.#settle(run, { output: JSON.stringify(result.output) });
      case "settle": {
        const failure: FailureRecord = { status: result.status, attempts: 1, error: result.error };
        return this.#settle(run, failure);
      }
      case "retry":
        return this.#store.postpone(run.claim, result.delayMs, JSON.stringify(result.error));
      case "release":
        return this.#store.postpone(run.claim, result.delayMs, undefined);
    }
  }

  async #wait(ticking: ClaimedRun, seen: number, commands: readonly Command[]): Promise<"done" | "more" | "lost"> {
    const { claim } = ticking;
    const fresh = commands.filter((command) => command.n >= ticking.commands);
    const outbox: Outbox = {
      runs: fresh.flatMap((command) => (command.do === "run" ? [[command.n, command.run] as const] : [])),
      cancels: fresh.flatMap((command) => (command.do === "cancel" ? [command.of] : [])),
    };
    const busy = outbox.runs.length > 0 || outbox.cancels.length > 0;
    const tick: TickRecord = {
      seen,
      commands: ticking.commands + fresh.length,
      entries: fresh.map(({ n, key }) => JSON.stringify({ type: "command", n, key })),
      timers: fresh.flatMap((command) => timerOf(command)),
      cancelledTimers: outbox.cancels,
      children: outbox.runs.map(([n, run]) => [n, toRunId(this.#job(claim, n, run).ref)] as const),
      stalls: claim.json.stalledCounter,
      ...(busy && { outbox: JSON.stringify(outbox) }),
    };
    const length = seen + fresh.length;
    if (!busy) {
      const outcome = await this.#store.park(claim, length, tick);
      if (outcome === "more") ticking.commands = tick.commands;
      return outcome;
    }
    if ((await this.#store.record(claim, tick)) === "lost") return "lost";
    ticking.commands = tick.commands;
    await this.#carryOut(ticking, outbox);
    return this.#store.park(claim, length, undefined);
  }

  /** Starts and cancels runs. Each may be done again without harm: the ids follow from the command. */
  async #carryOut({ claim }: ClaimedRun, { runs, cancels }: Outbox): Promise<void> {
    if (runs.length > 0) await this.#store.add(runs.map(([n, run]) => this.#job(claim, n, run)));
    for (const n of cancels) {
      const child = await this.#store.child(claim, n);
      if (child !== undefined) await this.#cancel(child);
    }
  }

  #job(claim: Claim, n: number, run: RunRequest) {
    return toJob(run, [toRunId(claim.ref), n]);
  }

  /** Settles the run. What it started and has not settled is cancelled between the decision and its end. */
  async #settle({ lane, claim }: ClaimedRun, ending: Ending): Promise<"done" | "lost"> {
    const outcome = await this.#store.finishWorkflow(lane, claim, ending, false);
    if (typeof outcome === "string") return outcome;
    for (const child of outcome) await this.#cancel(child);
    return (await this.#store.finishWorkflow(lane, claim, ending, true)) === "done" ? "done" : "lost";
  }

  async #cancel(run: string): Promise<void> {
    const ref = toRef(run);
    const job = ref && (await this.#store.get(ref));
    if (job) await this.#store.cancel(job, cancelledFailure(job));
  }
}

function timerOf(command: Command): (readonly [n: number, dueAtMs: number])[] {
  if (command.do === "sleep") return [[command.n, command.untilMs]];
  return command.do === "await" && command.untilMs !== undefined ? [[command.n, command.untilMs]] : [];
}
