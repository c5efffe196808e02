import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { putNote, readNotes } from "./notes.ts";
import type { ReadNote, Sent } from "./wire.ts";

/** Notes become visible a moment after their time, so notes of this period are read again. */
const OVERLAP_MS = 10_000;
/** A signal's sender waits for less than this when the run was ending. */
const HEARD_MS = 60_000;
/** The most ids that a run's end carries: a workflow may have got more signals. */
const MAX_HEARD = 1_000;

/** The signals and cancellations of a workflow's run, as one invocation sees them. The run's own log has only the ids taken, and when. */
export class Inbox {
  readonly #client: HatchetClient;
  readonly #runId: string;
  readonly #unread = new Map<string, Sent>();
  /** The notes that were taken, by id, and when they came. */
  readonly #taken = new Map<string, number>();
  #latestMs: number | undefined;

  constructor(client: HatchetClient, runId: string) {
    this.#client = client;
    this.#runId = runId;
  }

  /**
   * Notes that a workflow starts here, unless an earlier invocation has noted it; the version of the first note counts. `cancelled`
   * means that somebody cancelled the run without having seen the start, so that this worker must end it.
   */
  async begin(first: boolean, version: string | undefined): Promise<{ readonly version?: string; readonly cancelled: boolean }> {
    const before = first ? undefined : (await this.#read()).find(isBegan);
    if (before) return { ...(before.version !== undefined && { version: before.version }), cancelled: false };
    await putNote(this.#client, this.#runId, "begins", { type: "began", kind: "workflow", ...(version !== undefined && { version }) });
    const notes = await this.#read();
    const began = notes.find(isBegan);
    return {
      ...(began?.version !== undefined && { version: began.version }),
      cancelled: notes.some(({ type }) => type === "cancel"),
    };
  }

  /** The notes that were not taken yet, in the order in which they came. */
  async unread(): Promise<readonly Sent[]> {
    await this.#read();
    return [...this.#unread.values()].sort((a, b) => a.seenAtMs - b.seenAtMs);
  }

  /** Takes the notes that this or an earlier invocation has chosen. */
  async take(ids: readonly string[]): Promise<readonly Sent[]> {
    if (ids.some((id) => !this.#unread.has(id) && !this.#taken.has(id))) {
      this.#latestMs = undefined;
      await this.#read();
    }
    return ids.flatMap((id) => {
      const sent = this.#unread.get(id);
      if (!sent) {
        if (this.#taken.has(id)) return [];
        throw new Error(
          `Run ${this.#runId} has taken signal ${id}, which Hatchet has no more: its logs are kept for less long than the run.`,
        );
      }
      this.#unread.delete(id);
      this.#taken.set(id, sent.seenAtMs);
      return [sent];
    });
  }

  /** The ids of recently taken signals, for senders whose signal came as the run ended. */
  heard(): readonly string[] {
    const sinceMs = (this.#latestMs ?? 0) - HEARD_MS;
    return [...this.#taken].flatMap(([id, seenAtMs]) => (seenAtMs >= sinceMs ? [id] : [])).slice(-MAX_HEARD);
  }

  async #read(): Promise<readonly ReadNote[]> {
    const sinceMs = this.#latestMs;
    const notes = await readNotes(this.#client, this.#runId, sinceMs === undefined ? {} : { sinceMs: sinceMs - OVERLAP_MS });
    for (const note of notes) {
      this.#latestMs = Math.max(this.#latestMs ?? 0, note.seenAtMs);
      if ((note.type === "signal" || note.type === "cancel") && !this.#taken.has(note.id)) this.#unread.set(note.id, note);
    }
    return notes;
  }
}

function isBegan(note: ReadNote): note is Extract<ReadNote, { type: "began" }> {
  return note.type === "began";
}
