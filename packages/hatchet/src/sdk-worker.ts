import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { BackendUnavailableError, withTimeout } from "@task-backend/core/adapter";
import type { Declaration } from "./registry.ts";

const READY_MS = 8_000;
/** The longest wait for a server that does not answer while a worker closes. */
const CLOSE_MS = 2_000;

type Made = Awaited<ReturnType<HatchetClient["worker"]>>;

/** The hidden part of the SDK's worker that we need. */
interface Internals {
  killing: boolean;
  workerId?: string;
  readonly futures: Readonly<Record<string, { readonly promise: Promise<unknown> }>>;
  readonly evictionManager?: { stop(): void };
  createListener(): Promise<Listener>;
}

interface Listener {
  readonly heartbeat: { stop(): Promise<void> };
  readonly abortController?: AbortController;
  getListenClient(): Promise<unknown>;
  unregister(): Promise<unknown>;
}

export interface SdkWorkerOptions {
  readonly name: string;
  readonly workflows: readonly Declaration[];
  readonly slots: number;
  readonly durableSlots: number;
  readonly labels: Readonly<Record<string, number>>;
}

/**
 * One worker of the SDK, from its opening to its closing. Closing takes seconds at most, even while the worker is still opening or the
 * server is unreachable, and ends everything: the SDK's own stop has no time limit, and does not end a start that is under way.
 */
export class SdkWorker {
  readonly #client: HatchetClient;
  readonly #closing = new AbortController();
  #internals: Internals | undefined;
  #listener: Listener | undefined;
  #ended: (reason: string) => void = () => {};
  /** Resolves, with a reason for people, when the connection has ended for good: the SDK gives up after some minutes. */
  readonly ended = new Promise<string>((resolve) => (this.#ended = resolve));

  private constructor(client: HatchetClient) {
    this.#client = client;
  }

  /**
   * Resolves when the server knows the worker. If that fails or is aborted, nothing of the worker is left.
   * @throws BackendUnavailableError
   */
  static async open(client: HatchetClient, options: SdkWorkerOptions, signal: AbortSignal): Promise<SdkWorker> {
    signal.throwIfAborted();
    const worker = new SdkWorker(client);
    let give = (): void => {};
    const givenUp = new Promise<never>((_, reject) => {
      give = (): void => reject(signal.reason as Error);
      signal.addEventListener("abort", give, { once: true });
    });
    const late = (): Error => new BackendUnavailableError(`Hatchet did not take the worker ${options.name} within ${READY_MS} ms.`);
    try {
      await withTimeout(Promise.race([worker.#start(options), givenUp]), READY_MS, late);
      return worker;
    } catch (error) {
      await worker.close();
      throw error;
    } finally {
      signal.removeEventListener("abort", give);
    }
  }

  async #start({ workflows, ...options }: SdkWorkerOptions): Promise<void> {
    const { signal } = this.#closing;
    const made = await withoutSignals(() =>
      this.#client.worker(options.name, { ...options, workflows: [...workflows] as never, handleKill: false }),
    );
    signal.throwIfAborted();
    const internals = (made as unknown as { _internal: Internals })._internal;
    this.#internals = internals;
    const ready = this.#onListener(internals);
    const started = made.start();
    started.then(
      () => this.#ended(""),
      (error: Error) => this.#ended(`: ${error.message}`),
    );
    await Promise.race([
      ready,
      started.then(() => {
        throw new BackendUnavailableError(`The Hatchet worker ${options.name} ended as it began.`);
      }),
    ]);
  }

  /** Resolves when the server knows the worker. A listener that comes after the close is ended at once. */
  #onListener(internals: Internals): Promise<void> {
    const { signal } = this.#closing;
    const create = internals.createListener.bind(internals);
    return new Promise((resolve) => {
      internals.createListener = async () => {
        signal.throwIfAborted();
        const listener = await create();
        this.#listener = listener;
        const connect = listener.getListenClient.bind(listener);
        // The listener may be about to reconnect, after a pause of seconds.
        listener.getListenClient = async () => {
          const stream = signal.aborted ? undefined : await connect();
          if (!signal.aborted) return stream;
          await listener.heartbeat.stop();
          listener.abortController?.abort();
          throw new DOMException("The worker is closed.", "AbortError");
        };
        if (signal.aborted) await unregister(listener);
        signal.throwIfAborted();
        resolve();
        return listener;
      };
    });
  }

  /** Tells the server to assign no more runs. */
  async pause(): Promise<void> {
    const id = this.#internals?.workerId;
    if (id !== undefined) await within(CLOSE_MS, this.#client.workers.pause(id));
  }

  /** Closes the worker once the ends of its runs are reported, or the time is over. */
  async close(): Promise<void> {
    const internals = this.#internals;
    if (internals) {
      internals.killing = true;
      const told = Object.values(internals.futures).map(({ promise }) => promise);
      await within(CLOSE_MS, Promise.allSettled(told));
    }
    this.#closing.abort(new Error("The worker is closed."));
    internals?.evictionManager?.stop();
    await this.#client.durableListener.stop();
    if (this.#listener) await within(CLOSE_MS, unregister(this.#listener));
  }
}

async function unregister(listener: Listener): Promise<void> {
  await listener.unregister().catch(() => {});
}

/** Waits for the work at most so long, and ignores its outcome. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const late = new AbortController();
  const ended = work.then(
    () => {},
    () => {},
  );
  await Promise.race([ended, pause(ms, undefined, { signal: late.signal }).catch(() => {})]);
  late.abort();
}

/** Removes the signal handlers that the SDK installs when it makes a worker. All this happens before any other code can run. */
function withoutSignals(make: () => Promise<Made>): Promise<Made> {
  const signals = ["SIGTERM", "SIGINT"] as const;
  const before = signals.map((signal) => process.rawListeners(signal));
  const made = make();
  for (const [index, signal] of signals.entries()) {
    const known = [...(before[index] ?? [])];
    for (const listener of process.rawListeners(signal)) {
      const at = known.indexOf(listener);
      if (at === -1) process.removeListener(signal, listener as () => void);
      else known.splice(at, 1);
    }
  }
  return made;
}
