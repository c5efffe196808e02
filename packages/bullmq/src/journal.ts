import {
  errorRecord,
  type Answer,
  type Command,
  type DrivenRun,
  type ErrorRecord,
  type JournalEntry,
  type JournalSlice,
  type JournalStore,
  type RunRequest,
} from "@task-backend/core/adapter";
import { isRefused, readStored, RunFault } from "./errors.ts";
import { isWorkflowQueue, toRef, toRunId } from "./ids.ts";
import { cancelledFailure, chargedStarts, MAX_DUE_MS, toJob, type FailureRecord, type NewJob } from "./mapping.ts";
import type { Claim, Ending, Lane, Store, TickRecord } from "./store.ts";

/** The runs to start and cancel for a tick; recorded until this worker has done it. */
interface Outbox {
  readonly runs: readonly (readonly [n: number, run: RunRequest])[];
  readonly cancels: readonly number[];
}

/** A position beyond the end of any journal. */
const NO_ENTRIES = 2 ** 31 - 1;

/**
 * The largest size of all commands of one tick, in characters of JSON. They are recorded in one step; PostgreSQL's jsonb is limited
 * to 256 MB and a Redis value to 512 MB, and the text grows when it is quoted once more.
 */
const MAX_TICK_CHARACTERS = 64 * 1024 * 1024;

/** A run for a tick, with the claim of its job. */
export interface ClaimedRun extends DrivenRun {
  readonly lane: Lane;
  readonly claim: Claim;
  /** The number of recorded commands. */
  commands: number;
}

/**
 * The journals of workflow runs. Steps, timers and signals append to them as they happen, in the store's atomic steps.
 * Commands are recorded before they are carried out; if this worker is lost, the next tick carries them out again.
 * An error in the run's own data is thrown as a RunFault.
 */
export class WorkflowJournal implements JournalStore<ClaimedRun> {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Prepares a tick. Returns how many ticks in a row were lost with their worker. */
  async begin(run: ClaimedRun): Promise<number | "settled"> {
    const { claim, version } = run;
    if (claim.json.stalledCounter === 0) return 0;
    // The lost worker may have been settling the run, or carrying out commands.
    const state = await this.#store.load(claim, NO_ENTRIES, version);
    if (state === "lost") return "settled";
    const { ending } = state;
    if (ending !== undefined) {
      await this.#settle(
        run.lane,
        claim,
        readStored(`The ending of run "${run.id}"`, () => JSON.parse(ending) as Ending),
      );
      return "settled";
    }
    const job = await this.#store.get(claim.ref);
    return claim.json.stalledCounter - (job?.workflow?.stalls ?? 0);
  }

  async load(run: ClaimedRun, from: number): Promise<JournalSlice | "lost"> {
    const state = await this.#store.load(run.claim, from, run.version);
    if (state === "lost") return "lost";
    const { outbox } = state;
    if (outbox !== undefined) {
      await this.#carryOut(
        run,
        readStored(`What run "${run.id}" asked for`, () => JSON.parse(outbox) as Outbox),
      );
    }
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

  async commit(run: ClaimedRun, seen: number, result: Answer, reordered?: readonly JournalEntry[]): Promise<"done" | "more" | "lost"> {
    const { lane, claim } = run;
    // The new order is stored separately: it is right even if the answer based on it is not carried out.
    if (reordered && (await this.#store.reorder(claim, reordered)) === "lost") return "lost";
    switch (result.do) {
      case "complete":
        return this.#settle(lane, claim, { output: JSON.stringify(result.output) }, seen);
      case "settle": {
        const failure: FailureRecord = { status: result.status, attempts: 1, error: result.error };
        // A cancelled run settles even if signals have come since.
        return this.#settle(lane, claim, failure, result.status === "failed" ? seen : undefined);
      }
      case "wait":
        return this.#wait(run, seen, result.commands);
      case "retry":
        return this.#store.postpone(claim, result.delayMs, JSON.stringify(result.error));
      case "release":
        return this.#store.postpone(claim, result.delayMs, undefined);
    }
  }

  /** Settles a run that cannot go on, even if signals have come since, and whether or not it is a workflow. */
  async fail(lane: Lane, claim: Claim, error: ErrorRecord): Promise<void> {
    const failure: FailureRecord = { status: "failed", attempts: isWorkflowQueue(lane.queue) ? 1 : chargedStarts(claim.json), error };
    await this.#settle(lane, claim, failure).catch(async (thrown: unknown) => {
      if (!isRefused(thrown)) throw thrown;
      // The children of the run can no longer be read.
      await this.#store.finishWorkflow(lane, claim, failure, { force: true });
    });
  }

  async #wait(ticking: ClaimedRun, seen: number, commands: readonly Command[]): Promise<"done" | "more" | "lost"> {
    const { claim } = ticking;
    const fresh = commands.filter((command) => command.n >= ticking.commands);
    checkSize(ticking, fresh);
    const outbox: Outbox = {
      runs: fresh.flatMap((command) => (command.do === "run" ? [[command.n, command.run] as const] : [])),
      cancels: fresh.flatMap((command) => (command.do === "cancel" ? [command.of] : [])),
    };
    const busy = outbox.runs.length > 0 || outbox.cancels.length > 0;
    const children = outbox.runs.map(([n, run]) => [n, this.#idOf(claim, n, run)] as const);
    const tick: TickRecord = {
      seen,
      commands: ticking.commands + fresh.length,
      entries: fresh.map(({ n, key }) => JSON.stringify({ type: "command", n, key })),
      timers: fresh.flatMap((command) => timerOf(command)),
      cancelledTimers: outbox.cancels,
      children,
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

  /**
   * Cancels and starts runs. Both may be repeated without harm, because the ids follow from the commands. Runs that an earlier tick
   * started are cancelled before new ones start. A run that the same tick cancels never starts: it is added with the latest due time.
   */
  async #carryOut({ claim }: ClaimedRun, { runs, cancels }: Outbox): Promise<void> {
    const stillborn = runs.filter(([n]) => cancels.includes(n)).map(([n, run]) => neverDue(this.#job(claim, n, run)));
    if (stillborn.length > 0) await this.#store.add(stillborn);
    for (const n of cancels) {
      const child = await this.#store.child(claim, n);
      if (child !== undefined) await this.#cancel(child);
    }
    const wanted = runs.filter(([n]) => !cancels.includes(n));
    if (wanted.length > 0) await this.#store.add(wanted.map(([n, run]) => this.#job(claim, n, run)));
  }

  #job(claim: Claim, n: number, run: RunRequest): NewJob {
    return toJob(run, [toRunId(claim.ref), n]);
  }

  /** @throws RunFault when the run could not be found again by its id. It must not be recorded, or it would be retried for ever. */
  #idOf(claim: Claim, n: number, run: RunRequest): string {
    const id = toRunId(this.#job(claim, n, run).ref);
    if (toRef(id)) return id;
    const message = `The queue of step "${run.name}" is ${JSON.stringify(run.queue)}; give a name.`;
    throw new RunFault(errorRecord("InvalidArgumentError", "INVALID_ARGUMENT", message));
  }

  /** Settles a run; its unsettled children are cancelled after the decision is recorded and before the run ends. */
  async #settle(lane: Lane, claim: Claim, ending: Ending, seen?: number): Promise<"done" | "more" | "lost"> {
    const outcome = await this.#store.finishWorkflow(lane, claim, ending, seen === undefined ? {} : { seen });
    if (typeof outcome === "string") return outcome;
    for (const child of outcome) await this.#cancel(child);
    return (await this.#store.finishWorkflow(lane, claim, ending, { force: true })) === "done" ? "done" : "lost";
  }

  async #cancel(run: string): Promise<void> {
    const ref = toRef(run);
    const job = ref && (await this.#store.get(ref));
    if (job) await this.#store.cancel(job, cancelledFailure(job));
  }
}

function neverDue(job: NewJob): NewJob {
  return { ...job, opts: { ...job.opts, delay: MAX_DUE_MS - job.timestamp } };
}

/** This many commands surely fit, even with inputs of the largest size. */
const FIT = 3;

/** @throws RunFault with PAYLOAD_TOO_LARGE */
function checkSize({ name }: ClaimedRun, commands: readonly Command[]): void {
  if (commands.length <= FIT) return;
  let characters = 0;
  for (const command of commands) {
    // Commands are measured one at a time: together they may be longer than a string can be.
    characters += command.key.length + (command.do === "run" ? JSON.stringify(command.run).length : 0);
    if (characters <= MAX_TICK_CHARACTERS) continue;
    const message =
      `Workflow "${name}" asked for ${commands.length} things at once, whose inputs come to more than ${MAX_TICK_CHARACTERS} characters of ` +
      "JSON together; await some before it asks for others, or store the inputs elsewhere and pass references.";
    throw new RunFault(errorRecord("PayloadTooLargeError", "PAYLOAD_TOO_LARGE", message));
  }
}

function timerOf(command: Command): (readonly [n: number, dueAtMs: number])[] {
  if (command.do === "sleep") return [[command.n, command.untilMs]];
  return command.do === "await" && command.untilMs !== undefined ? [[command.n, command.untilMs]] : [];
}
