import { setMaxListeners } from "node:events";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { TaskRunTerminatedError } from "@hatchet-dev/typescript-sdk/util/errors/task-run-terminated-error.js";
import { NonDeterminismError } from "@hatchet-dev/typescript-sdk/util/errors/non-determinism-error.js";
import { V1DurableEventLogKind } from "@hatchet-dev/typescript-sdk/clients/rest/generated/data-contracts.js";
import { withTimeout, type Json } from "@task-backend/core/adapter";
import { printable, putNote } from "./notes.ts";
import { sorted } from "./wire.ts";

const ACK_MS = 30_000;
const MAX_LABEL = 200;
/** The engine counts durations in nanoseconds of 63 bits, which is 292 years, and it does not answer a request that it cannot accept. */
const MAX_SLEEP_MS = 100 * 365 * 24 * 3600 * 1_000;

/** The content of a memo. The kind tells which place in our code wrote it. */
interface Entry {
  readonly kind: string;
}

/**
 * The log that Hatchet keeps of a durable task. A later invocation must write the same entries in the same order as the earlier
 * ones, and gets the same answers. The SDK's context hides the ids of children, their labels, and memos that are
 * read before they are written, so this class uses its listener directly.
 */
export class DurableLog {
  readonly #context: DurableContext<object>;
  readonly #runId: string;
  readonly #invocation: number;
  #last: Promise<unknown> = Promise.resolve();
  #children = 0;
  #received = 0;
  /** The number of entries that the server has. Each invocation counts them alike. */
  #entries = 0;
  /** Whether earlier invocations may have written the next entries. */
  #replaying: boolean;
  /** Set when an acknowledgement is missing: a later one could be mistaken for it. */
  #late: Error | undefined;

  constructor(context: DurableContext<object>) {
    this.#context = context;
    // Each wait adds a listener.
    setMaxListeners(0, context.abortController.signal);
    this.#runId = context.taskRunExternalId();
    this.#invocation = context.invocationCount;
    this.#replaying = context.invocationCount > 1;
  }

  /** The number of this invocation; all starts count. */
  get invocation(): number {
    return this.#invocation;
  }

  /** Writes an entry. Returns the entry of an earlier invocation, if there is one. */
  async memo<T extends Entry>(entry: T): Promise<T> {
    const { payload } = await this.#memo(encode(entry));
    return payload ? ofKind<T>(decode(payload), entry.kind) : entry;
  }

  /** Returns the entry that an earlier invocation wrote here, or makes one and writes it. */
  async record<T extends Entry>(kind: T["kind"], make: () => Promise<T>): Promise<T> {
    return (await this.next<T>(kind)) ?? this.memo(await make());
  }

  /** The entry that an earlier invocation wrote here; undefined when there is none, because the log ends here. */
  async next<T extends Entry>(kind: T["kind"]): Promise<T | undefined> {
    while (this.#replaying) {
      const { existed, payload } = await this.#memo();
      if (!existed) this.#replaying = false;
      // An earlier invocation that only asked has left an empty memo.
      else if (payload) return ofKind<T>(decode(payload), kind);
    }
    return undefined;
  }

  async #memo(payload?: Uint8Array): Promise<{ readonly existed: boolean; readonly payload?: Uint8Array }> {
    const ack = await this.#send<MemoAck>({ kind: "memo", memoKey: MEMO, ...(payload && { payload }) });
    this.#context.durableListener.consumeCallbackWithoutBlocking(this.#runId, this.#invocation, ack.branchId, ack.nodeId);
    const { memoAlreadyExisted: existed, memoResultPayload: result } = ack;
    const before = existed && result && result.length > 0 ? result : undefined;
    if (payload ?? before) this.#entries++;
    return { existed, ...(before && { payload: before }) };
  }

  /** Resolves when the sleep has started. The duration must be the same in each invocation. */
  async sleep(ms: number, label?: string): Promise<Wait<unknown>> {
    const sleepFor = `${Math.min(Math.max(Math.ceil(ms), 1), MAX_SLEEP_MS)}ms`;
    const sleepConditions = [{ base: base("sleep"), sleepFor }];
    return this.#wait({ sleepConditions, userEventConditions: [] }, label);
  }

  /** Resolves when the log waits for such events; `done` resolves when the first one has come. */
  async event(key: string): Promise<Wait<unknown>> {
    const userEventKey = `${this.#context.runtime.namespace ?? ""}${key}`;
    return this.#wait({ sleepConditions: [], userEventConditions: [{ base: base("event"), userEventKey }] });
  }

  async #wait(waitForConditions: object, label?: string): Promise<Wait<Completion>> {
    const ack = await this.#send<Node>({
      kind: "waitFor",
      waitForConditions,
      ...(label !== undefined && { label: printable(label).slice(0, MAX_LABEL) }),
    });
    this.#entries++;
    const done = this.#completed("waitFor", ack);
    done.catch(() => {});
    return { done };
  }

  /** Starts a child run. */
  async spawn(child: Child): Promise<Spawned> {
    const { action } = this.#context;
    const { name, input, metadata, priority, labels } = child;
    const ack = await this.#send<RunAck>({
      kind: "runChildren",
      triggerOpts: [
        {
          name: `${this.#context.runtime.namespace ?? ""}${name}`,
          input: JSON.stringify(input),
          parentId: action.workflowRunId,
          parentTaskRunExternalId: this.#runId,
          childIndex: this.#children++,
          additionalMetadata: JSON.stringify(metadata),
          priority,
          desiredWorkerLabels: labels,
        },
      ],
    });
    const [entry] = ack.runEntries;
    if (!entry) throw new Error(`Hatchet started no run of ${name}`);
    this.#entries++;
    const done = this.#completed("runChild", entry);
    done.catch(() => {});
    return { id: entry.workflowRunExternalId, done };
  }

  /**
   * Leaves the run to the engine, which starts it again when one of its waits completes. Returns when the engine did not accept it:
   * after the loss of a worker it may look at an outdated copy of the run. The engine does not check for a wait that has just
   * completed, so this method and the watchdogs do.
   */
  async evict(client: HatchetClient, reason: string): Promise<void> {
    const known = this.#received;
    await putNote(client, this.#runId, reason, { type: "left", known });
    await this.#context.durableListener.sendEvictInvocation(this.#runId, this.#invocation, reason);
    const { isEvicted } = await client.runs.getDetails(this.#runId);
    if (!isEvicted) return;
    if ((await countHappened(client, this.#runId).catch(() => 0)) > known) await client.runs.restoreTask(this.#runId).catch(() => {});
    throw new TaskRunTerminatedError("evicted", reason);
  }

  /** Releases the run: the engine starts it again, here or on another worker. */
  async release(client: HatchetClient, reason: string): Promise<never> {
    await putNote(client, this.#runId, reason, { type: "left", known: this.#received });
    throw new Released(reason);
  }

  #completed(kind: string, { branchId, nodeId }: Node): Promise<Completion> {
    const { durableListener, abortController } = this.#context;
    const wait = async (): Promise<Completion> => {
      const signal = { signal: abortController.signal };
      const completion = await durableListener.waitForCallback(this.#runId, this.#invocation, branchId, nodeId, signal);
      this.#received++;
      return completion as Completion;
    };
    // During this wait the SDK may evict the run.
    return (this.#context as unknown as Waiting).withEvictionWait(kind, `node:${nodeId}`, wait);
  }

  /** Sends one event at a time: acknowledgements are matched by run and invocation only. */
  #send<A extends Ack>(event: object): Promise<A> {
    const { durableListener, abortController } = this.#context;
    const sent = this.#last.then(() => {
      abortController.signal.throwIfAborted();
      if (this.#late) throw this.#late;
      const acknowledged = durableListener.sendEvent(this.#runId, this.#invocation, event as never) as Promise<unknown> as Promise<A>;
      // The SDK drops events while it reconnects. The next invocation sends the same event.
      const late = (): Error => (this.#late = new Unanswered(this.#entries));
      return withTimeout(acknowledged, ACK_MS, late);
    });
    this.#last = sent.catch(() => {});
    return sent;
  }
}

type Ack = MemoAck | Node | RunAck;

interface Node {
  readonly branchId: number;
  readonly nodeId: number;
}

interface MemoAck extends Node {
  readonly memoAlreadyExisted: boolean;
  readonly memoResultPayload?: Uint8Array;
}

interface RunAck {
  readonly runEntries: readonly (Node & { readonly workflowRunExternalId: string })[];
}

/** The engine treats this as a failure that may be retried. */
class Released extends Error {}

/** The server did not acknowledge the n-th entry: a connection broke, or the server cannot accept the entry. */
export class Unanswered extends Error {
  constructor(readonly at: number) {
    super(`Hatchet did not acknowledge entry ${at} of a durable log within ${ACK_MS} ms.`);
  }
}

/** The log was written by other code than the code that reads it. */
class Differs extends Error {}

function ofKind<T extends Entry>(entry: unknown, kind: string): T {
  const found = (entry as Entry | null)?.kind;
  if (found !== kind) throw new Differs(`its log goes on with "${String(found)}", and its code with "${kind}".`);
  return entry as T;
}

export interface Child {
  readonly name: string;
  readonly input: { readonly [key: string]: Json };
  readonly metadata: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly labels: Readonly<Record<string, { readonly intValue: number; readonly required: true }>>;
}

export interface Wait<T> {
  readonly done: Promise<T>;
}

export interface Spawned {
  readonly id: string;
  readonly done: Promise<Completion>;
}

/** The end of a child run: its output, or the text of its error. */
export interface Completion {
  readonly payload?: Json;
  readonly isFailure: boolean;
  readonly errorMessage?: string;
}

interface Waiting {
  withEvictionWait<T>(kind: string, resource: string, wait: () => Promise<T>): Promise<T>;
}

/** The number of completed waits and children of a run. */
export async function countHappened(client: HatchetClient, runId: string): Promise<number> {
  const { data } = await client.api.v1DurableTaskEventLogList(client.tenantId, runId, { limit: 100_000 });
  return data.filter(({ kind, isSatisfied }) => isSatisfied && kind !== V1DurableEventLogKind.MEMO).length;
}

/** Whether the log differs from the calls of this invocation. */
export function isNonDeterminism(error: unknown): error is Error {
  return error instanceof NonDeterminismError || error instanceof Differs;
}

/** All memos have the same key: entries are identified by their position. */
const MEMO = encode("task-backend");

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function decode(bytes: Uint8Array): unknown {
  return sorted(JSON.parse(new TextDecoder().decode(bytes)) as Json);
}

function base(readableDataKey: string) {
  return { readableDataKey, action: 0, orGroupId: crypto.randomUUID(), expression: "" };
}
