import { setMaxListeners } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { createGrpcClient } from "@hatchet-dev/typescript-sdk/util/grpc-helpers.js";
import { DispatcherDefinition } from "@hatchet-dev/typescript-sdk/protoc/dispatcher/dispatcher.js";
import { Waiters } from "@task-backend/core/adapter";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";

const AGAIN_MS = 500;

/** The ends of a run in no order, each an output as JSON, or an error. Empty when the output was too large. */
export type RunEnd = readonly { readonly output?: string | undefined; readonly error?: string | undefined }[];

/**
 * One stream for all waits: the ids of runs are sent up, and the news of their ends comes down. After a drop it is opened again, and
 * all ids that are still waited for are sent again. The SDK's own stream never ends, and serves one wait per run.
 */
export class RunEvents {
  readonly #grpc: ReturnType<typeof createGrpcClient<typeof DispatcherDefinition>>;
  readonly #waiters = new Waiters<RunEnd>();
  readonly #abort = new AbortController();
  readonly #unsent: string[] = [];
  #notify = (): void => {};
  #runs = false;

  constructor(client: HatchetClient) {
    this.#grpc = createGrpcClient(client.config, DispatcherDefinition);
  }

  /** Resolves when that run has ended; rejects with the reason of the signal. */
  end(runId: string, signal: AbortSignal): Promise<RunEnd> {
    const end = this.#waiters.follow(runId, signal);
    this.#unsent.push(runId);
    this.#notify();
    if (!this.#runs) void this.#run();
    this.#runs = true;
    return end;
  }

  /** Rejects all waits with the reason. */
  close(reason: Error): void {
    this.#waiters.rejectAll(reason);
    this.#abort.abort();
    this.#notify();
    this.#grpc.channel.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      const stream = new AbortController();
      // The client adds a listener for each message.
      setMaxListeners(0, stream.signal);
      const onAbort = (): void => stream.abort();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        for await (const { workflowRunId, results } of this.#grpc.client.subscribeToWorkflowRuns(this.#requests(stream.signal), {
          signal: stream.signal,
        })) {
          this.#waiters.settle(workflowRunId, results);
        }
      } catch {
        // The stream is opened again below.
      } finally {
        stream.abort();
        signal.removeEventListener("abort", onAbort);
        this.#notify();
      }
      if (signal.aborted) return;
      await pause(AGAIN_MS, undefined, { ref: false });
      this.#unsent.splice(0, Infinity, ...this.#waiters.ids);
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
