import {
  cancelledRecord,
  corruptRecord,
  PRIORITIES,
  signalsFirst,
  type Command,
  type DefinitionSpec,
  type JournalEntry,
  type Priority,
  type Tick,
  type TickResult,
  type WorkerRuntime,
} from "@task-backend/core/adapter";
import { Context } from "@temporalio/activity";
import { priorityOf } from "./activity-options.ts";
import { BEAT_MS, type Links } from "./activities.ts";
import { failureOf, NOT_HERE, retryDelay } from "./failure.ts";
import { toRunId } from "./mapping.ts";
import { inOrder, isUnclear, toldOf } from "./order.ts";
import { RULES, type TickAnswer, type TickArguments, type Told } from "./wire.ts";

/** Half of the size that fits into one payload of Temporal, and into one message of its workers. */
const MAX_ANSWER_BYTES = 700_000;
/** The number of runs whose last tick is remembered. */
const MAX_REMEMBERED = 2_000;

/** The entries given to a live function that no recorded answer has acted on. */
interface Given {
  readonly startedAtMs: number;
  readonly acted: number;
  readonly entries: readonly string[];
}

/** The ticks of one worker: mostly local activities, and ordinary ones for ticks that only another worker or other code can answer. */
export class Ticks {
  readonly #runtime: WorkerRuntime;
  readonly #links: Links;
  readonly #heartbeatTimeoutMs: number;
  readonly #given = new Map<string, Given>();

  constructor(runtime: WorkerRuntime, links: Links, heartbeatTimeoutMs: number) {
    this.#runtime = runtime;
    this.#links = links;
    this.#heartbeatTimeoutMs = heartbeatTimeoutMs;
  }

  readonly tick = async (asked: unknown): Promise<TickAnswer> => {
    const tick = readTick(asked);
    if (!tick) throw failureOf({ status: "failed", attempts: 1, error: corruptRecord("A tick that something else has asked for") });
    if (tick.undecided && !this.#known("workflow", tick.name) && this.#known("task", tick.name)) return { do: "task", rules: RULES };
    const { info, heartbeat } = Context.current();
    const timer = info.isLocal ? undefined : setInterval(() => heartbeat(), BEAT_MS);
    const answer = await this.#ask(tick).finally(() => clearInterval(timer));
    if (info.isLocal || (answer.do !== "retry" && answer.do !== "release")) return answer;
    const status = answer.do === "retry" ? "retrying" : "released";
    const error = answer.do === "retry" ? answer.error : NOT_HERE;
    throw failureOf({ status, attempts: 1, error }, retryDelay(answer.delayMs));
  };

  async #ask(tick: TickArguments): Promise<TickAnswer> {
    const { info } = Context.current();
    const { workflowId, from, acted = from, startedAtMs } = tick;
    const id = toRunId({ kind: "workflow", id: workflowId });
    // The answer tells the version that starts the run: all later ticks use it.
    const version = tick.version ?? this.#known("workflow", tick.name)?.version;
    const entries = await this.#ordered(tick, tick.entries.map(completed));
    this.#compare(id, tick, acted, entries.list);
    const result = await this.#runtime.advance({
      id,
      name: tick.name,
      ...(version !== undefined && { version }),
      queue: tick.queue,
      input: tick.input,
      headers: tick.headers,
      ...(tick.priorityKey !== undefined && { priority: priorityNamed(tick.priorityKey) }),
      startedAtMs,
      entries: entries.list,
      from,
      seen: acted,
      commandsSeen: tick.commandsSeen,
      retries: info.isLocal ? 0 : info.attempt,
    } satisfies Tick);
    if (result.do !== "wait") this.#given.delete(id);
    if (result.do === "needJournal" && result.signalsFirst && from === 0 && !tick.signalsFirst) {
      return this.#ask({ ...tick, signalsFirst: true });
    }
    return {
      ...(result.do === "wait" ? waiting(result.commands) : result),
      rules: RULES,
      heartbeatTimeoutMs: this.#heartbeatTimeoutMs,
      ...(tick.version === undefined && version !== undefined && { version }),
      ...(acted === 0 && { startedAtMs }),
      ...(isCarriedOut(result) && entries.told.length > 0 && { told: entries.told }),
    };
  }

  /** Orders timers before later entries, and returns this order also in the form of an answer. */
  async #ordered(tick: TickArguments, sent: readonly JournalEntry[]): Promise<{ list: readonly JournalEntry[]; told: readonly Told[] }> {
    const { from, acted = from, timers = [], events } = tick;
    // The first rules had no other order than that of the events.
    if (tick.acted === undefined) return { list: sent, told: [] };
    const fresh = sent.slice(acted - from);
    const origin = new Map(fresh.map((entry, index) => [entry, index]));
    let list: readonly JournalEntry[] = fresh;
    if (events !== undefined && isUnclear(fresh, timers)) {
      const { workflowExecution } = Context.current().info;
      const arrivedAt = await this.#links.arrivalTimes(workflowExecution ?? { workflowId: tick.workflowId, runId: "" }, fresh, events);
      const ordered = inOrder(fresh, timers, arrivedAt);
      // An entry with another time is a copy; copies have the order of their originals.
      const arrivals = fresh.filter(isArrival);
      for (const copy of ordered.filter(isArrival)) origin.set(copy, fresh.indexOf(arrivals.shift() as JournalEntry));
      list = ordered;
    }
    list = [...sent.slice(0, acted - from), ...list];
    if (tick.signalsFirst) list = signalsFirst(list, acted - from);
    return { list, told: toldOf(list.slice(acted - from), (entry) => origin.get(entry)) };
  }

  /** Evicts a live run that got other entries in a tick whose answer was lost: its function must start again. */
  #compare(id: string, { startedAtMs, from }: TickArguments, acted: number, entries: readonly JournalEntry[]): void {
    const fresh = entries.slice(acted - from).map((entry) => JSON.stringify(entry));
    const before = this.#given.get(id);
    const isSame =
      !before ||
      (before.startedAtMs === startedAtMs &&
        before.entries.every((entry, index) => before.acted + index < acted || entry === fresh[before.acted + index - acted]));
    if (!isSame) this.#runtime.evict(id);
    this.#given.delete(id);
    this.#given.set(id, { startedAtMs, acted, entries: fresh });
    const [oldest] = this.#given.keys();
    if (this.#given.size > MAX_REMEMBERED && oldest !== undefined) this.#given.delete(oldest);
  }

  #known(kind: DefinitionSpec["kind"], name: string): DefinitionSpec | undefined {
    return this.#runtime.definitions.findLast((one) => one.kind === kind && one.name === name);
  }
}

/** Whether the interpreter carries the answer out, and does not only repeat the tick. */
function isCarriedOut(result: TickResult): boolean {
  return result.do === "wait" || result.do === "complete" || result.do === "settle";
}

function isArrival({ type }: JournalEntry): boolean {
  return type === "signal" || type === "settled";
}

/** Completes the record of a cancelled step, which the interpreter leaves empty. */
function completed(entry: JournalEntry): JournalEntry {
  if (entry.type !== "settled" || entry.outcome.status !== "cancelled" || entry.outcome.error.code !== "") return entry;
  return { ...entry, outcome: { status: "cancelled", error: cancelledRecord(entry.outcome.error.name) } };
}

function waiting(all: readonly Command[]): Pick<TickAnswer, "more" | "due"> & { do: "wait"; commands: readonly Command[] } {
  const { commands, more } = firstOf(withoutCancelled(all));
  const nowMs = Date.now();
  const isDue = (command: Command): boolean => "untilMs" in command && command.untilMs !== undefined && command.untilMs <= nowMs;
  const due = commands.filter(isDue).map(({ n }) => n);
  return { do: "wait", commands, ...(more && { more }), ...(due.length > 0 && { due }) };
}

/** Replaces a command that its own tick cancels with one that has no effect. */
function withoutCancelled(commands: readonly Command[]): readonly Command[] {
  const cancelled = new Set(commands.flatMap((command) => (command.do === "cancel" ? [command.of] : [])));
  return commands.map((command) =>
    cancelled.has(command.n) ? { n: command.n, key: command.key, do: "cancel" as const, of: command.n } : command,
  );
}

/** The first commands, as many as one answer may hold; the answer stays in the history. */
function firstOf(commands: readonly Command[]): { commands: readonly Command[]; more?: true } {
  let bytes = 0;
  const end = commands.findIndex((command, index) => (bytes += Buffer.byteLength(JSON.stringify(command))) > MAX_ANSWER_BYTES && index > 0);
  return end === -1 ? { commands } : { commands: commands.slice(0, end), more: true };
}

function priorityNamed(key: number): Priority {
  return PRIORITIES.find((priority) => priorityOf(priority).priorityKey === key) ?? "normal";
}

/** Checks the arguments of a tick: anybody may start an activity of that name. */
function readTick(asked: unknown): TickArguments | undefined {
  if (typeof asked !== "object" || asked === null) return undefined;
  const { workflowId, name, queue, entries, from, commandsSeen, headers } = asked as Record<string, unknown>;
  const texts = [workflowId, name, queue].every((value) => typeof value === "string");
  const numbers = [from, commandsSeen].every((value) => typeof value === "number");
  const fits = texts && numbers && Array.isArray(entries) && typeof headers === "object" && headers !== null;
  return fits ? (asked as TickArguments) : undefined;
}
