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

/** The journal of a workflow's run, as one invocation builds it anew from Hatchet's log. */
export class Journal {
  readonly timers = new Timers();
  /** Of the last thing that has happened, by what is on record: the same in each invocation. */
  nowMs: number;
  #entries: JournalEntry[] = [];
  /** How much of it the last tick that waited knew. */
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

  /** A deadline that has passed comes before what came after it, also when the engine tells of it later. */
  fire(untilMs: number): void {
    for (const { n, dueMs } of this.timers.takeDue(untilMs)) this.happened({ type: "fired", n, atMs: Math.max(this.nowMs, dueMs), dueMs });
  }

  commanded({ n, key }: Command): void {
    this.#commandsSeen++;
    this.#entries.push({ type: "command", n, key });
  }

  /** What comes next. */
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
