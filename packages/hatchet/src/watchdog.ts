import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { Intervals, type Logger } from "@task-backend/core/adapter";
import { countHappened } from "./durable-log.ts";
import { readNotes } from "./notes.ts";
import { hatchetName } from "./registry.ts";
import { wake } from "./sent.ts";
import { readMeta } from "./wire.ts";

const LOOKS_EVERY_MS = 10_000;
/** Younger runs are not looked at: most of them end before. */
const OLD_MS = 30_000;

/** Restarts runs that the engine has forgotten: their waits completed while they were left to it. */
export class Watchdog {
  readonly #client: HatchetClient;
  readonly #names: readonly string[];
  readonly #queues: readonly string[];
  readonly #log: Logger;
  readonly #warned = new Set<string>();
  readonly #intervals: Intervals;

  constructor(client: HatchetClient, names: readonly string[], queues: readonly string[], log: Logger) {
    this.#client = client;
    this.#names = names;
    this.#queues = queues;
    this.#log = log;
    this.#intervals = new Intervals(log);
  }

  /** Looks at once, and then at intervals. */
  start(): void {
    const look = (): Promise<void> => this.#look();
    this.#intervals.every(LOOKS_EVERY_MS, "look for runs that Hatchet has forgotten", look);
    void look().catch(() => {});
  }

  stop(): void {
    this.#intervals.stop();
  }

  async #look(): Promise<void> {
    await this.#warnOfUnknown();
    if (this.#names.length === 0) return;
    const { rows } = await this.#client.runs.list({
      workflowNames: [...this.#names],
      statuses: ["RUNNING"] as never,
      onlyTasks: true,
      includePayloads: false,
      // Without `since` the SDK lists only the last hour.
      since: new Date(0),
      until: new Date(Date.now() - OLD_MS),
      limit: 50,
    });
    for (const { taskExternalId } of rows) await this.#bringBack(taskExternalId);
  }

  /** Warns of runs that no worker knows: Hatchet itself only keeps them waiting. */
  async #warnOfUnknown(): Promise<void> {
    const { rows } = await this.#client.runs.list({
      statuses: ["QUEUED"] as never,
      onlyTasks: true,
      includePayloads: false,
      limit: 200,
    });
    for (const { additionalMetadata, workflowName = "" } of rows) {
      if (!workflowName.startsWith(this.#client.config.namespace ?? "")) continue;
      const { name, queue } = readMeta(additionalMetadata, workflowName).meta;
      if (!this.#queues.includes(queue) || this.#names.includes(hatchetName(name, false)) || this.#warned.has(name)) continue;
      this.#warned.add(name);
      this.#log.warn(`Runs of "${name}" wait on queue "${queue}", and this worker does not know it.`);
    }
  }

  async #bringBack(runId: string): Promise<void> {
    const { isEvicted } = await this.#client.runs.getDetails(runId);
    if (!isEvicted) return;
    const notes = await readNotes(this.#client, runId);
    const left = notes.findLast((note) => note.type === "left");
    if (!left) return;
    if ((await countHappened(this.#client, runId)) > left.known) await this.#client.runs.restoreTask(runId);
    // The event of this note was lost, for example in a crash of the server.
    else if (notes.some((note) => (note.type === "signal" || note.type === "cancel") && note.seenAtMs > left.seenAtMs))
      await wake(this.#client, runId);
  }
}
