import { randomUUID } from "node:crypto";
import { redactUrl, type JournalEntry } from "@task-backend/core/adapter";
import { Queue, raw2NextJobData, Worker, type JobJson, type MinimalJob } from "bullmq";
import { Cluster, Redis } from "ioredis";
import {
  failureFields,
  isWorkflowQueue,
  settledEntry,
  toRef,
  toRunId,
  type FailureRecord,
  type JobData,
  type JobRef,
  type NewJob,
  type StoredJob,
} from "../mapping.ts";
import type { BullmqSettings, RedisTarget } from "../options.ts";
import {
  keepFor,
  minimalJob,
  toJobJson,
  type OnFinished,
  type Claim,
  type Ending,
  type Lane,
  type NextJob,
  type Store,
  type TickRecord,
  type WorkflowState,
} from "../store.ts";
import { RedisConnections } from "./connections.ts";
import { RedisLane } from "./redis-lane.ts";
import { toStoredJob, type RawJob } from "./raw-job.ts";
import type { ScriptName } from "./scripts.ts";
import { RedisEvents } from "./redis-events.ts";

type Argument = string | number | Buffer;

/** The part of BullMQ's Redis backend that puts keys and arguments of its scripts together. */
interface ScriptArguments {
  moveToFinishedArgs(
    job: MinimalJob,
    value: string,
    property: "returnvalue" | "failedReason",
    keep: unknown,
    target: "completed" | "failed",
    token: string,
    timestamp: number,
    fetchNext: boolean,
    fields?: object,
  ): Argument[];
  moveToDelayedArgs(id: string, timestamp: number, token: string, delay: number, options: { skipAttempt: boolean }): Argument[];
}

const CLOSE_MS = 1_000;
const FINISH_KEYS = 14;
const DELAY_KEYS = 11;

/** The store on Redis: BullMQ's scripts within ours, on the keys described in `scripts.ts`. */
export class RedisStore implements Store {
  readonly where: string;
  readonly #settings: BullmqSettings;
  readonly #prefix: string;
  readonly #connections: RedisConnections;
  readonly #queues = new Map<string, Queue>();
  readonly #events: RedisEvents;
  readonly #channel: string;

  constructor(settings: BullmqSettings, target: RedisTarget) {
    this.#settings = settings;
    this.#prefix = target.prefix;
    this.#channel = `${target.prefix}:tb:cancelled`;
    this.#connections = new RedisConnections(target.connection);
    this.where = `Redis at ${whereOf(target)}`;
    this.#events = new RedisEvents(this.#connections, target.prefix);
  }

  async connect(signal: AbortSignal): Promise<{ version: string }> {
    const client = await this.#connections.open(signal);
    const version = /redis_version:(\S+)/.exec(await client.info("server"))?.[1] ?? "unknown";
    return { version: `bullmq 6.7.0 on redis ${version}` };
  }

  async close(): Promise<void> {
    const closed = Promise.all([this.#events.close(), ...[...this.#queues.values()].map((queue) => queue.close().catch(() => {}))]);
    // Away from its server, a connection of BullMQ ends at once and never says so.
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([closed, new Promise((resolve) => (timer = setTimeout(resolve, CLOSE_MS)))]);
    clearTimeout(timer);
    this.#connections.close();
  }

  healthy(): boolean {
    return this.#connections.healthy();
  }

  queue(name: string): Queue {
    let queue = this.#queues.get(name);
    if (!queue) {
      queue = new Queue(name, {
        ...this.#settings.queue,
        prefix: this.#prefix,
        connection: this.#connections.producer,
        skipVersionCheck: true,
      });
      // The connection tells of its errors itself.
      queue.on("error", () => {});
      this.#queues.set(name, queue);
    }
    return queue;
  }

  async add(jobs: readonly NewJob[]): Promise<void> {
    if (!this.#connections.isReady) await this.#connections.ready();
    const [only] = jobs;
    if (jobs.length === 1 && only) await this.#add(only);
    else await Promise.all(jobs.map((job) => this.#add(job)));
  }

  #add(job: NewJob): Promise<unknown> {
    return this.queue(job.ref.queue).backend.addJob(toJobJson(job), job.ref.id);
  }

  async get(ref: JobRef): Promise<StoredJob | undefined> {
    await this.#connections.ready();
    return this.#get(ref);
  }

  async finished(refs: readonly JobRef[]): Promise<readonly StoredJob[]> {
    await this.#connections.ready();
    const jobs = await Promise.all(refs.map((ref) => this.#get(ref)));
    return jobs.filter((job) => job?.finishedOn !== undefined) as StoredJob[];
  }

  async #get(ref: JobRef): Promise<StoredJob | undefined> {
    const { keys } = this.queue(ref.queue);
    const key = this.#key(ref);
    const raw = (await this.#run(this.#connections.producer, "tbGet", [
      key,
      `${key}:tb`,
      keys["completed"],
      keys["failed"],
      keys["delayed"],
      keys["prioritized"],
      keys["active"],
      ref.id,
    ])) as RawJob | null;
    return raw ? toStoredJob(ref, raw) : undefined;
  }

  watch(queue: string, onFinished: OnFinished): Promise<void> {
    return this.#events.watch(queue, onFinished);
  }

  onCancel(listener: (runId: string) => void): Promise<() => void> {
    return this.#connections.subscribe(this.#channel, listener);
  }

  async cancel(job: StoredJob, failure: FailureRecord): Promise<"requested" | "settled" | "unknown"> {
    await this.#connections.ready();
    const { ref, data } = job;
    const key = this.#key(ref);
    const token = randomUUID();
    const claim: Claim = {
      ref,
      token,
      data,
      json: { opts: {} } as JobJson,
    };
    const finish = this.#finishArguments(this.#arguments(this.queue(ref.queue)), claim, failure, false);
    const parent = this.#parent(data, ref, settledEntry(data, failure));
    const answer = await this.#run(this.#connections.producer, "tbCancel", [
      key,
      `${key}:tb`,
      `${key}:tb:journal`,
      `${key}:tb:timers`,
      `${key}:lock`,
      ...this.#promoteKeys(ref.queue),
      ...finish.slice(0, FINISH_KEYS),
      ...parent.keys,
      ref.id,
      token,
      30_000,
      JSON.stringify({ type: "cancel", atMs: Date.now() }),
      this.#channel,
      toRunId(ref),
      ...this.#promoteArguments(ref),
      ...finish.slice(FINISH_KEYS),
      ...parent.arguments,
    ]);
    if (typeof answer === "number") throw new Error(`BullMQ refused to cancel job ${toRunId(ref)} with code ${answer}`);
    return answer as "requested" | "settled" | "unknown";
  }

  async signal(ref: JobRef, entry: string, dedupeId: string | undefined): Promise<"accepted" | "settled" | "unknown" | "not-a-workflow"> {
    await this.#connections.ready();
    const key = this.#key(ref);
    return (await this.#run(this.#connections.producer, "tbSignal", [
      key,
      `${key}:tb`,
      `${key}:tb:journal`,
      ...this.#promoteKeys(ref.queue),
      entry,
      dedupeId ?? "",
      isWorkflowQueue(ref.queue) ? "1" : "0",
      ...this.#promoteArguments(ref),
    ])) as "accepted" | "settled" | "unknown" | "not-a-workflow";
  }

  lane(queue: string, { workerName }: { readonly workerName: string }): Lane {
    const worker = new Worker(queue, null, {
      ...this.#settings.worker,
      removeOnComplete: keepFor(this.#settings.retentionMs),
      removeOnFail: keepFor(this.#settings.retentionMs),
      name: workerName,
      prefix: this.#prefix,
      connection: this.#connections.worker(),
      autorun: false,
      lockDuration: this.#settings.lockMs,
      stalledInterval: this.#settings.stalledIntervalMs,
      maxStalledCount: Number.MAX_SAFE_INTEGER,
      skipVersionCheck: true,
    });
    return new RedisLane(worker, workerName, this.#connections.worker());
  }

  async progress({ ref, token }: Claim, value: string): Promise<void> {
    const key = this.#key(ref);
    const { keys } = this.queue(ref.queue);
    await this.#run(this.#connections.worker(), "tbProgress", [`${key}:lock`, key, keys["events"], keys["meta"], token, ref.id, value]);
  }

  async finishStep(lane: Lane, claim: Claim, ending: Ending, fetchNext: boolean): Promise<NextJob | "lost"> {
    const answer = await this.#finish(lane, claim, ending, fetchNext, "task");
    if (answer === "lost" || answer[0] !== "finished") return "lost";
    return typeof answer[1] === "number" && answer[1] < 0 ? "lost" : (raw2NextJobData(answer[1] as unknown[]) as unknown[]);
  }

  async finishWorkflow(lane: Lane, claim: Claim, ending: Ending, force: boolean): Promise<"done" | "lost" | readonly string[]> {
    const answer = await this.#finish(lane, claim, ending, false, force ? "force" : "workflow");
    if (answer === "lost") return "lost";
    if (answer[0] === "children") return answer[1] as string[];
    return typeof answer[1] === "number" && answer[1] < 0 ? "lost" : "done";
  }

  async #finish(
    lane: Lane,
    claim: Claim,
    ending: Ending,
    fetchNext: boolean,
    mode: "task" | "workflow" | "force",
  ): Promise<"lost" | [string, unknown]> {
    const { ref, token, data } = claim;
    const key = this.#key(ref);
    const finish = this.#finishArguments(lane.backend as unknown as ScriptArguments, claim, ending, fetchNext);
    const parent = this.#parent(data, ref, settledEntry(data, ending));
    return (await this.#run(this.#connections.worker(), "tbFinish", [
      `${key}:lock`,
      ...finish.slice(0, FINISH_KEYS),
      ...parent.keys,
      `${key}:tb`,
      `${key}:tb:journal`,
      `${key}:tb:timers`,
      token,
      ...finish.slice(FINISH_KEYS),
      ...parent.arguments,
      mode,
      JSON.stringify(ending),
    ])) as "lost" | [string, unknown];
  }

  async load(claim: Claim, from: number, version: string | undefined): Promise<WorkflowState | "lost"> {
    const answer = await this.#run(this.#connections.worker(), "tbLoad", [
      ...this.#workflowKeys(claim.ref),
      claim.token,
      Date.now(),
      from,
      version ?? "",
    ]);
    if (answer === "lost") return "lost";
    const [entries, [seen, commands, retries, startedAt, storedVersion, outbox, ending]] = answer as [string[], (string | null)[]];
    return {
      entries: entries.map((entry) => JSON.parse(entry) as JournalEntry),
      seen: Number(seen ?? 0),
      commands: Number(commands ?? 0),
      retries: Number(retries ?? 0),
      startedAtMs: Number(startedAt),
      ...(storedVersion && { version: storedVersion }),
      ...(outbox && { outbox }),
      ...(ending && { ending }),
    };
  }

  async record(claim: Claim, tick: TickRecord): Promise<"done" | "lost"> {
    return (await this.#commit(claim, tick, false, 0)) as "done" | "lost";
  }

  async park(claim: Claim, length: number, tick: TickRecord | undefined): Promise<"done" | "more" | "lost"> {
    return (await this.#commit(claim, tick, true, length)) as "done" | "more" | "lost";
  }

  #commit({ ref, token }: Claim, tick: TickRecord | undefined, park: boolean, length: number): Promise<unknown> {
    const delayed = this.#arguments(this.queue(ref.queue)).moveToDelayedArgs(ref.id, Date.now(), token, 0, { skipAttempt: true });
    return this.#run(this.#connections.worker(), "tbCommit", [
      ...this.#workflowKeys(ref),
      ...delayed.slice(0, DELAY_KEYS),
      token,
      tick ? JSON.stringify(tick) : "",
      park ? "1" : "0",
      length,
      ...delayed.slice(DELAY_KEYS),
    ]);
  }

  async postpone({ ref, token, json }: Claim, delayMs: number, error: string | undefined): Promise<"done" | "lost"> {
    const delayed = this.#arguments(this.queue(ref.queue)).moveToDelayedArgs(ref.id, Date.now(), token, delayMs, { skipAttempt: true });
    const key = this.#key(ref);
    return (await this.#run(this.#connections.worker(), "tbPostpone", [
      `${key}:lock`,
      `${key}:tb`,
      ...delayed.slice(0, DELAY_KEYS),
      token,
      error ?? "",
      json.stalledCounter,
      ...delayed.slice(DELAY_KEYS),
    ])) as "done" | "lost";
  }

  async child({ ref }: Claim, n: number): Promise<string | undefined> {
    return (await this.#connections.worker().hget(`${this.#key(ref)}:tb`, `child:${n}`)) ?? undefined;
  }

  async forget(ref: JobRef): Promise<void> {
    const key = this.#key(ref);
    await this.#connections.worker().del(`${key}:tb`, `${key}:tb:journal`, `${key}:tb:timers`);
  }

  // ---- keys and arguments ----

  #key({ queue, id }: JobRef): string {
    return `${this.#prefix}:${queue}:${id}`;
  }

  #workflowKeys(ref: JobRef): string[] {
    const key = this.#key(ref);
    return [`${key}:lock`, `${key}:tb`, `${key}:tb:journal`, `${key}:tb:timers`];
  }

  #promoteKeys(queue: string): string[] {
    const names = ["delayed", "wait", "paused", "meta", "prioritized", "active", "pc", "events", "marker"];
    return names.map((name) => `${this.#prefix}:${queue}:${name}`);
  }

  #promoteArguments({ queue, id }: JobRef): string[] {
    return [`${this.#prefix}:${queue}:`, id];
  }

  /** Of the workflow that started the run; where there is none, the run's own fill the places. */
  #parent({ parent }: JobData, own: JobRef, entry: string | undefined): { keys: string[]; arguments: Argument[] } {
    const ref = (parent && toRef(parent[0])) ?? own;
    const key = this.#key(ref);
    return {
      keys: [`${key}:tb`, `${key}:tb:journal`, ...this.#promoteKeys(ref.queue)],
      arguments: [parent ? parent[1] : "", entry ?? "", ...this.#promoteArguments(ref)],
    };
  }

  #arguments(queue: Queue): ScriptArguments {
    return queue.backend as unknown as ScriptArguments;
  }

  #finishArguments(backend: ScriptArguments, claim: Claim, ending: Ending, fetchNext: boolean): Argument[] {
    const job = minimalJob(claim);
    const now = Date.now();
    const keep = keepFor(this.#settings.retentionMs);
    if ("output" in ending) {
      return backend.moveToFinishedArgs(job, ending.output, "returnvalue", keep, "completed", claim.token, now, fetchNext);
    }
    const fields = failureFields(ending);
    return backend.moveToFinishedArgs(job, fields.failedReason, "failedReason", keep, "failed", claim.token, now, fetchNext, fields);
  }

  #run(client: Redis | Cluster, script: ScriptName, args: readonly (Argument | undefined)[]): Promise<unknown> {
    return (client as unknown as Record<ScriptName, (...args: unknown[]) => Promise<unknown>>)[script](...args);
  }
}

function whereOf({ connection }: RedisTarget): string {
  if (typeof connection === "string") return redactUrl(connection);
  const options =
    "options" in connection ? (connection.options as { host?: string; port?: number }) : (connection as { host?: string; port?: number });
  return options.host ? `${options.host}:${options.port ?? 6379}` : "the given connection";
}
