import { setMaxListeners } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { createGrpcClient } from "@hatchet-dev/typescript-sdk/util/grpc-helpers.js";
import { DispatcherDefinition } from "@hatchet-dev/typescript-sdk/protoc/dispatcher/dispatcher.js";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";

const AGAIN_MS = 500;

/** What a run ended with, each time that it ended, in no order: an output as JSON, or an error. Empty when it was too large. */
export type RunEnd = readonly { readonly output?: string | undefined; readonly error?: string | undefined }[];

type Listener = (end: RunEnd) => void;

/**
 * One stream for all waits: the ids of runs go up, the news of their ends come down. After a drop it is opened again, and
 * asked again for all that are still waited for. The SDK's own never ends, and serves one wait a run.
 */
export class RunEvents {
  readonly #grpc: ReturnType<typeof createGrpcClient<typeof DispatcherDefinition>>;
  readonly #waits = new Map<string, Set<Listener>>();
  readonly #abort = new AbortController();
  readonly #unsent: string[] = [];
  #notify = (): void => {};
  #runs = false;

  constructor(client: HatchetClient) {
    this.#grpc = createGrpcClient(client.config, DispatcherDefinition);
  }

  /** Calls back when that run has ended; answers with what stops it. */
  onEnd(runId: string, listener: Listener): () => void {
    const listeners = this.#waits.get(runId) ?? new Set();
    this.#waits.set(runId, listeners.add(listener));
    this.#unsent.push(runId);
    this.#notify();
    if (!this.#runs) void this.#run();
    this.#runs = true;
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#waits.get(runId) === listeners) this.#waits.delete(runId);
    };
  }

  close(): void {
    this.#abort.abort();
    this.#notify();
    this.#grpc.channel.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      const stream = new AbortController();
      // The client listens to it for each message.
      setMaxListeners(0, stream.signal);
      const onAbort = (): void => stream.abort();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        for await (const { workflowRunId, results } of this.#grpc.client.subscribeToWorkflowRuns(this.#requests(stream.signal), {
          signal: stream.signal,
        })) {
          const listeners = this.#waits.get(workflowRunId);
          this.#waits.delete(workflowRunId);
          for (const listener of listeners ?? []) listener(results);
        }
      } catch {
        // Opened again below.
      } finally {
        stream.abort();
        signal.removeEventListener("abort", onAbort);
        this.#notify();
      }
      if (signal.aborted) return;
      await pause(AGAIN_MS, undefined, { ref: false });
      this.#unsent.splice(0, Infinity, ...this.#waits.keys());
    }
  }

  async *#requests(signal: AbortSignal): AsyncGenerator<{ workflowRunId: string }> {
    signal.addEventListener("abort", () => this.#notify(), { once: true });
    while (!signal.aborted) {
      for (let id = this.#unsent.shift(); id !== undefined; id = this.#unsent.shift()) yield { workflowRunId: id };
      await new Promise<void>((resolve) => {
        this.#notify = resolve;
        if (this.#unsent.length > 0) resolve();
      });
    }
  }
}
