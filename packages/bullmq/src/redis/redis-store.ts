import { randomUUID } from "node:crypto";
import { redactUrl, type JournalEntry } from "@task-backend/core/adapter";
import { Queue, raw2NextJobData, Worker, type JobJson, type MinimalJob } from "bullmq";
import { Cluster, Redis } from "ioredis";
import { readEntry } from "../envelope.ts";
import { isWorkflowQueue, toRunId, type JobRef } from "../ids.ts";
import { failureFields, settledEntry, type FailureRecord, type NewJob, type StoredJob } from "../mapping.ts";
import type { BullmqSettings, RedisTarget } from "../options.ts";
import {
  keepFor,
  minimalJob,
  toJobJson,
  type OnFinished,
  type Claim,
  type Ended,
  type Ending,
  type FinishOptions,
  type Lane,
  type NextJob,
  type SignalAnswer,
  type Store,
  type TickRecord,
  type WorkflowState,
} from "../store.ts";
import { RedisConnections } from "./connections.ts";
import { Keys } from "./keys.ts";
import { RedisLane } from "./redis-lane.ts";
import { readable, toStoredJob, type RawJob } from "./raw-job.ts";
import type { ScriptName } from "./scripts.ts";
import { RedisEvents } from "./redis-events.ts";

type Argument = string | number | Buffer;

/** The part of BullMQ's Redis backend that builds the keys and arguments of its scripts. */
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

/** The store on Redis: our scripts contain BullMQ's. `scripts.ts` describes the keys. */
export class RedisStore implements Store {
  readonly where: string;
  readonly #settings: BullmqSettings;
  readonly #prefix: string;
  readonly #keys: Keys;
  readonly #connections: RedisConnections;
  readonly #queues = new Map<string, Queue>();
  readonly #events: RedisEvents;

  constructor(settings: BullmqSettings, target: RedisTarget) {
    this.#settings = settings;
    this.#prefix = target.prefix;
    this.#keys = new Keys(target.prefix);
    this.#connections = new RedisConnections(target.connection);
    this.where = `Redis at ${whereOf(target)}`;
    this.#events = new RedisEvents(this.#connections, target.prefix);
  }

  async connect(signal: AbortSignal): Promise<{ version: string }> {
    const client = await this.#connections.open(signal);
    const version = /redis_version:(\S+)/.exec(await client.info("server"))?.[1] ?? "unknown";
    return { version: `bullmq 6.7.0 on redis ${version}` };
  }

  /** The channel includes the number of the database, because Redis channels span all databases. */
  get #channel(): string {
    return `${this.#prefix}:tb:cancelled:${this.#connections.database}`;
  }

  async close(): Promise<void> {
    const closed = Promise.all([this.#events.close(), ...[...this.#queues.values()].map((queue) => queue.close().catch(() => {}))]);
    // When its server is unreachable, a connection of BullMQ closes at once and never reports it.
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
      // The connection reports its errors itself.
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

  async ends(refs: readonly JobRef[], removed: boolean): Promise<readonly Ended[]> {
    await this.#connections.ready();
    const ends = refs.map(async (ref): Promise<Ended | undefined> => {
      const raw = await this.#read(ref, true);
      if (raw === 1 || (!raw && !removed)) return undefined;
      return { ref, job: raw ? toStoredJob(ref, raw) : undefined };
    });
    return (await Promise.all(ends)).filter((end) => end !== undefined);
  }

  async #get(ref: JobRef): Promise<StoredJob | undefined> {
    const raw = await this.#read(ref, false);
    return raw && raw !== 1 ? toStoredJob(ref, raw) : undefined;
  }

  /** Reads a job without a BullMQ queue: a queue would write its metadata to Redis, even if no such queue exists. */
  #read(ref: JobRef, endOnly: boolean): Promise<RawJob | 1 | null> {
    const states = ["completed", "failed", "delayed", "prioritized", "active"];
    return this.#run(this.#connections.producer, "tbGet", [
      this.#keys.job(ref),
      ...this.#keys.journal(ref).slice(0, 1),
      ...states.map((state) => this.#keys.of(ref.queue, state)),
      ref.id,
      endOnly ? "1" : "0",
    ]) as Promise<RawJob | 1 | null>;
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
    const token = randomUUID();
    const now = Date.now();
    const claim = { ref, token, json: { opts: {} } as JobJson };
    const finish = this.#finishArguments(this.#arguments(this.queue(ref.queue)), claim, failure, false);
    const parent = this.#keys.parent(data, ref, settledEntry(data, failure));
    const answer = await this.#run(this.#connections.producer, "tbCancel", [
      this.#keys.job(ref),
      this.#keys.lock(ref),
      ...this.#keys.workflow(ref),
      ...finish.slice(0, FINISH_KEYS),
      ...parent.keys,
      ref.id,
      token,
      30_000,
      JSON.stringify({ type: "cancel", atMs: now }),
      this.#channel,
      toRunId(ref),
      now,
      ...this.#keys.promoteArguments(ref),
      ...finish.slice(FINISH_KEYS),
      ...parent.arguments,
    ]);
    if (typeof answer === "number") throw new Error(`BullMQ refused to cancel job ${toRunId(ref)} with code ${answer}`);
    return answer as "requested" | "settled" | "unknown";
  }

  async signal(ref: JobRef, entry: string, dedupeId: string | undefined, patient: boolean): Promise<SignalAnswer> {
    await this.#connections.ready();
    return (await this.#run(this.#connections.producer, "tbSignal", [
      this.#keys.job(ref),
      ...this.#keys.workflow(ref),
      entry,
      dedupeId ?? "",
      isWorkflowQueue(ref.queue) ? "1" : "0",
      Date.now(),
      patient ? "1" : "0",
      ...this.#keys.promoteArguments(ref),
    ])) as SignalAnswer;
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
    const { queue, id } = ref;
    const keys = [this.#keys.lock(ref), this.#keys.job(ref), this.#keys.of(queue, "events"), this.#keys.of(queue, "meta")];
    await this.#run(this.#connections.worker(), "tbProgress", [...keys, token, id, value]);
  }

  async finishStep(lane: Lane, claim: Claim, ending: Ending, fetchNext: boolean): Promise<NextJob | "lost"> {
    const answer = await this.#finish(lane, claim, ending, fetchNext, "task");
    if (answer === "lost" || answer[0] !== "finished") return "lost";
    return typeof answer[1] === "number" && answer[1] < 0 ? "lost" : (raw2NextJobData(readable(answer[1]) as unknown[]) as unknown[]);
  }

  async finishWorkflow(
    lane: Lane,
    claim: Claim,
    ending: Ending,
    { force, seen }: FinishOptions,
  ): Promise<"done" | "more" | "lost" | readonly string[]> {
    const answer = await this.#finish(lane, claim, ending, false, force ? "force" : "workflow", seen);
    if (answer === "lost") return "lost";
    if (answer[0] === "more") return "more";
    if (answer[0] === "children") return answer[1] as string[];
    return typeof answer[1] === "number" && answer[1] < 0 ? "lost" : "done";
  }

  async #finish(
    lane: Lane,
    claim: Claim,
    ending: Ending,
    fetchNext: boolean,
    mode: "task" | "workflow" | "force",
    seen?: number,
  ): Promise<"lost" | [string, unknown]> {
    const { ref, token, data } = claim;
    const finish = this.#finishArguments(lane.backend as unknown as ScriptArguments, claim, ending, fetchNext);
    const parent = this.#keys.parent(data, ref, settledEntry(data, ending));
    return (await this.#run(this.#connections.worker(), "tbFinish", [
      this.#keys.lock(ref),
      ...finish.slice(0, FINISH_KEYS),
      ...parent.keys,
      ...this.#keys.journal(ref),
      token,
      ...finish.slice(FINISH_KEYS),
      ...parent.arguments,
      Date.now(),
      mode,
      JSON.stringify(ending),
      seen ?? "",
    ])) as "lost" | [string, unknown];
  }

  async load(claim: Claim, from: number, version: string | undefined): Promise<WorkflowState | "lost"> {
    const { ref } = claim;
    const answer = await this.#run(this.#connections.worker(), "tbLoad", [
      this.#keys.lock(ref),
      ...this.#keys.journal(ref),
      claim.token,
      Date.now(),
      from,
      version ?? "",
    ]);
    if (answer === "lost") return "lost";
    const [entries, [seen, commands, retries, startedAt, storedVersion, outbox, ending]] = answer as [string[], (string | null)[]];
    return {
      entries: entries.map((entry) => readEntry(entry, toRunId(ref))),
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
      this.#keys.lock(ref),
      ...this.#keys.journal(ref),
      ...delayed.slice(0, DELAY_KEYS),
      token,
      tick ? JSON.stringify(tick) : "",
      park ? "1" : "0",
      length,
      ...delayed.slice(DELAY_KEYS),
    ]);
  }

  async wake(ref: JobRef): Promise<void> {
    await this.#run(this.#connections.worker(), "tbWake", [...this.#keys.workflow(ref), ...this.#keys.promoteArguments(ref)]);
  }

  async reorder({ ref, token }: Claim, entries: readonly JournalEntry[]): Promise<"done" | "lost"> {
    return (await this.#run(this.#connections.worker(), "tbReorder", [
      this.#keys.lock(ref),
      ...this.#keys.journal(ref).slice(0, 2),
      token,
      ...entries.map((entry) => JSON.stringify(entry)),
    ])) as "done" | "lost";
  }

  async postpone({ ref, token, json }: Claim, delayMs: number, error: string | undefined): Promise<"done" | "lost"> {
    const delayed = this.#arguments(this.queue(ref.queue)).moveToDelayedArgs(ref.id, Date.now(), token, delayMs, { skipAttempt: true });
    return (await this.#run(this.#connections.worker(), "tbPostpone", [
      this.#keys.lock(ref),
      ...this.#keys.journal(ref).slice(0, 1),
      ...delayed.slice(0, DELAY_KEYS),
      token,
      error ?? "",
      json.stalledCounter,
      ...delayed.slice(DELAY_KEYS),
    ])) as "done" | "lost";
  }

  async child({ ref }: Claim, n: number): Promise<string | undefined> {
    return (await this.#connections.worker().hget(this.#keys.journal(ref)[0] as string, `child:${n}`)) ?? undefined;
  }

  async markTask(ref: JobRef): Promise<void> {
    await this.#run(this.#connections.worker(), "tbMarkTask", [this.#keys.job(ref), ...this.#keys.journal(ref)]);
  }

  // ---- keys and arguments ----

  #arguments(queue: Queue): ScriptArguments {
    return queue.backend as unknown as ScriptArguments;
  }

  #finishArguments(backend: ScriptArguments, claim: Pick<Claim, "ref" | "token" | "json">, ending: Ending, fetchNext: boolean): Argument[] {
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
