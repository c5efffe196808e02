import {
  signalsFirst,
  type Answer,
  type Command,
  type JournalEntry,
  type Tick,
  type WorkerRuntime,
  type WorkflowRun,
} from "@task-backend/core/adapter";
import { Timers } from "./timers.ts";

type Happening = Exclude<JournalEntry, { type: "command" }>;

/** The journal of a workflow's run, which each invocation rebuilds from Hatchet's log. */
export class Journal {
  readonly timers = new Timers();
  /** The time of the latest entry, from recorded data: the same in each invocation. */
  nowMs: number;
  #entries: JournalEntry[] = [];
  /** The number of entries that the last waiting tick was given. */
  #fed = 0;
  #commandsSeen = 0;
  #isCancelled = false;

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  get isCancelled(): boolean {
    return this.#isCancelled;
  }

  happened(entry: Happening): void {
    if (entry.type === "cancel" && this.#isCancelled) return;
    this.#isCancelled ||= entry.type === "cancel";
    this.nowMs = Math.max(this.nowMs, entry.atMs);
    this.#entries.push(entry);
  }

  /** Adds the timers that are due, before entries that came after them, even if the engine reports those timers later. */
  fire(untilMs: number): void {
    for (const { n, dueMs } of this.timers.takeDue(untilMs)) this.happened({ type: "fired", n, atMs: Math.max(this.nowMs, dueMs), dueMs });
  }

  commanded({ n, key }: Command): void {
    this.#commandsSeen++;
    this.#entries.push({ type: "command", n, key });
  }

  /** Asks core for the next answer. */
  async ask(runtime: WorkerRuntime, run: WorkflowRun, retries: number): Promise<Answer> {
    let again = false;
    for (let from = this.#fed; ;) {
      const tick: Tick = {
        ...run,
        entries: this.#entries.slice(from),
        from,
        seen: this.#fed,
        commandsSeen: this.#commandsSeen,
        retries,
      };
      const result = await runtime.advance(tick);
      if (result.do === "wait") this.#fed = from + tick.entries.length;
      if (result.do !== "needJournal") return result;
      if (result.signalsFirst) this.#entries = [...signalsFirst(this.#entries, this.#fed)];
      else if (again) return { do: "release", delayMs: 0 };
      else again = true;
      from = 0;
    }
  }
}
