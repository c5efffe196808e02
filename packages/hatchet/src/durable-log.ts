import { setMaxListeners } from "node:events";
import type { DurableContext } from "@hatchet-dev/typescript-sdk/v1/client/worker/context.js";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { TaskRunTerminatedError } from "@hatchet-dev/typescript-sdk/util/errors/task-run-terminated-error.js";
import { NonDeterminismError } from "@hatchet-dev/typescript-sdk/util/errors/non-determinism-error.js";
import { V1DurableEventLogKind } from "@hatchet-dev/typescript-sdk/clients/rest/generated/data-contracts.js";
import { withTimeout, type Json } from "@task-backend/core/adapter";
import { putNote } from "./notes.ts";
import { sorted } from "./wire.ts";

const ACK_MS = 30_000;

/**
 * The log that Hatchet keeps of a durable task: a later invocation must write what the earlier ones wrote, in their order,
 * and gets what they got. The SDK's context hides what we need of it: the ids of children, their labels, and memos
 * that are looked at before they are written; so this speaks to its listener.
 */
export class DurableLog {
  readonly #context: DurableContext<object>;
  readonly #runId: string;
  readonly #invocation: number;
  #last: Promise<unknown> = Promise.resolve();
  #children = 0;
  #received = 0;
  /** After a missing acknowledgement another one may be its. */
  #late: Error | undefined;

  constructor(context: DurableContext<object>) {
    this.#context = context;
    // Each wait listens to it.
    setMaxListeners(0, context.abortController.signal);
    this.#runId = context.taskRunExternalId();
    this.#invocation = context.invocationCount;
  }

  /** Counts all starts. */
  get invocation(): number {
    return this.#invocation;
  }

  /** Writes a record, and answers with the one that was there, if there was one. */
  async memo<T>(payload: T): Promise<T> {
    const encoded = encode(payload);
    const { payload: before = encoded } = await this.#memo(encoded);
    return decode<T>(before);
  }

  /** Reads the next record: `undefined` for one that was asked for before and not written, `end` behind the last one. */
  async read<T>(): Promise<T | "end" | undefined> {
    const { existed, payload } = await this.#memo();
    if (!existed) return "end";
    return payload === undefined ? undefined : decode<T>(payload);
  }

  async #memo(payload?: Uint8Array): Promise<{ readonly existed: boolean; readonly payload?: Uint8Array }> {
    const ack = await this.#send<MemoAck>({ kind: "memo", memoKey: MEMO, ...(payload && { payload }) });
    this.#context.durableListener.consumeCallbackWithoutBlocking(this.#runId, this.#invocation, ack.branchId, ack.nodeId);
    const { memoAlreadyExisted: existed, memoResultPayload: result } = ack;
    return { existed, ...(existed && result && result.length > 0 && { payload: result }) };
  }

  /** Resolves when the sleep has begun. The duration must be the same in each invocation. */
  async sleep(ms: number, label?: string): Promise<Wait<unknown>> {
    const sleepConditions = [{ base: base("sleep"), sleepFor: `${Math.max(Math.ceil(ms), 1)}ms` }];
    return this.#wait({ sleepConditions, userEventConditions: [] }, label);
  }

  /** Resolves when such events are listened for: `done` with the payload of the first that comes. */
  async event<T>(key: string): Promise<Wait<T>> {
    const userEventKey = `${this.#context.runtime.namespace ?? ""}${key}`;
    const { done } = await this.#wait({ sleepConditions: [], userEventConditions: [{ base: base(EVENT), userEventKey }] });
    return { done: done.then(({ payload }) => (payload as unknown as Happened<T>).CREATE[EVENT][0]) };
  }

  async #wait(waitForConditions: object, label?: string): Promise<Wait<Completion>> {
    const ack = await this.#send<Node>({ kind: "waitFor", waitForConditions, ...(label !== undefined && { label: label.slice(0, 200) }) });
    const done = this.#completed("waitFor", ack);
    done.catch(() => {});
    return { done };
  }

  /** Starts a run. */
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
    const done = this.#completed("runChild", entry);
    done.catch(() => {});
    return { id: entry.workflowRunExternalId, done };
  }

  /**
   * Leaves the run to the engine, which goes on with it when something it waits for happens. Returns when the engine did
   * not take it: after a lost worker it may look at a copy of the run that is out of date. Whether something has happened
   * just before is not looked at there, so it is here, and by the watchdogs.
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

  /** Gives the run back: the engine starts it again, here or elsewhere. */
  async giveBack(client: HatchetClient, reason: string): Promise<never> {
    await putNote(client, this.#runId, reason, { type: "left", known: this.#received });
    throw new GivenBack(reason);
  }

  #completed(kind: string, { branchId, nodeId }: Node): Promise<Completion> {
    const { durableListener, abortController } = this.#context;
    const wait = async (): Promise<Completion> => {
      const signal = { signal: abortController.signal };
      const completion = await durableListener.waitForCallback(this.#runId, this.#invocation, branchId, nodeId, signal);
      this.#received++;
      return completion as Completion;
    };
    // While it waits the SDK may evict it.
    return (this.#context as unknown as Waiting).withEvictionWait(kind, `node:${nodeId}`, wait);
  }

  /** One at a time: acknowledgements are told apart by run and invocation only. */
  #send<A extends Ack>(event: object): Promise<A> {
    const { durableListener, abortController } = this.#context;
    const sent = this.#last.then(() => {
      abortController.signal.throwIfAborted();
      if (this.#late) throw this.#late;
      const acknowledged = durableListener.sendEvent(this.#runId, this.#invocation, event as never) as Promise<unknown> as Promise<A>;
      // The SDK drops what it is given while it connects again. The next invocation asks for the same.
      const late = (): Error => (this.#late = new Error(`Hatchet acknowledged nothing for ${ACK_MS} ms.`));
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

/** The engine takes it for a failure that may be tried again. */
class GivenBack extends Error {}

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

const EVENT = "event";

/** What a wait ends with. */
interface Happened<T> {
  readonly CREATE: { readonly [EVENT]: readonly [T] };
}

export interface Spawned {
  readonly id: string;
  readonly done: Promise<Completion>;
}

/** Of a child run: what it returned, or the text of its error. */
export interface Completion {
  readonly payload?: Json;
  readonly isFailure: boolean;
  readonly errorMessage?: string;
}

interface Waiting {
  withEvictionWait<T>(kind: string, resource: string, wait: () => Promise<T>): Promise<T>;
}

/** How much of what a run waits for, or waited for, has happened. */
export async function countHappened(client: HatchetClient, runId: string): Promise<number> {
  const { data } = await client.api.v1DurableTaskEventLogList(client.tenantId, runId, { limit: 100_000 });
  return data.filter(({ kind, isSatisfied }) => isSatisfied && kind !== V1DurableEventLogKind.MEMO).length;
}

/** Whether a later invocation asked for something else than an earlier one. */
export function isNonDeterminism(error: unknown): error is Error {
  return error instanceof NonDeterminismError;
}

/** Records are told apart by their place. */
const MEMO = encode("task-backend");

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function decode<T>(bytes: Uint8Array): T {
  return sorted(JSON.parse(new TextDecoder().decode(bytes)) as Json) as T;
}

function base(readableDataKey: string) {
  return { readableDataKey, action: 0, orGroupId: crypto.randomUUID(), expression: "" };
}
