import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  createBackend,
  silentLogger,
  type BackendOptions,
  type Definition,
  type Logger,
  type TaskBackend,
  type Worker,
  type WorkerOptions,
} from "@task-backend/core";
import type { Adapter, Capabilities, Feature, Tick, WorkerRuntime } from "@task-backend/core/adapter";
import type { EngineUnderTest, Outage } from "./suite.ts";

type Definitions = readonly Definition[];

/** How long a worker process may take to serve, on a machine that is busy with other cases. */
const SPAWN_MS = 30_000;

/** How an adapter is made for a case, beyond the ordinary. */
export interface AdapterChanges {
  readonly retentionMs?: number;
  /** Declared unsupported, whatever the engine can do. */
  readonly unsupported?: readonly Feature[];
  /** Every tick replays its run from the beginning, as after a crash before it. */
  readonly coldTicks?: boolean;
  /** Called with each tick that reaches core. */
  readonly onTick?: (tick: Tick) => void;
  /** Called with the name of each method of the adapter. */
  readonly onCall?: (method: keyof Adapter) => void;
}

/** A worker process under the command that users run. */
export interface WorkerProcess {
  readonly pid: number;
  readonly exited: Promise<number | null>;
  /** What it logged so far. */
  output(): string;
  kill(signal: NodeJS.Signals): void;
}

/** What a case works with; everything it opens is closed when it ends. */
export class CaseContext {
  /** Of this case alone. */
  readonly queue = `q-${randomBytes(5).toString("hex")}`;
  /** A file for side effects: a line each. */
  readonly effects: string;
  readonly #engine: EngineUnderTest;
  readonly #sabotage: (adapter: Adapter) => Adapter;
  readonly #sabotageEnv: Readonly<Record<string, string>>;
  readonly #folder = mkdtempSync(join(tmpdir(), "conformance-"));
  readonly #backends: TaskBackend[] = [];
  readonly #processes: ChildProcess[] = [];
  readonly #cleanups: (() => Promise<void>)[] = [];

  constructor(
    engine: EngineUnderTest,
    sabotage: (adapter: Adapter) => Adapter = (adapter) => adapter,
    sabotageEnv: Readonly<Record<string, string>> = {},
  ) {
    this.#engine = engine;
    this.#sabotage = sabotage;
    this.#sabotageEnv = sabotageEnv;
    this.effects = join(this.#folder, "effects");
  }

  /** A connected backend of its own. */
  async backend(changes: AdapterChanges = {}, options: BackendOptions = {}): Promise<TaskBackend> {
    const adapter = this.#engine.createAdapter(changes.retentionMs === undefined ? undefined : { retentionMs: changes.retentionMs });
    return this.#connect(changed(adapter, changes), options);
  }

  /** An engine of its own that can be made unreachable, and a backend on it. */
  async outage(options: BackendOptions): Promise<{ outage: Outage; backend: TaskBackend }> {
    const outage = await this.#engine.outage();
    this.#cleanups.push(() => outage.end());
    return { outage, backend: await this.#connect(outage.createAdapter(), options) };
  }

  async #connect(adapter: Adapter, options: BackendOptions): Promise<TaskBackend> {
    const backend = await createBackend(this.#sabotage(adapter), { log: silentLogger, ...options });
    this.#backends.push(backend);
    return backend;
  }

  /** A backend with these definitions and a worker for the queue of the case. */
  async serve(
    definitions: Definitions,
    options: WorkerOptions = {},
    changes: AdapterChanges = {},
    log: Logger = silentLogger,
  ): Promise<{ backend: TaskBackend; worker: Worker }> {
    const backend = await this.backend(changes, { log });
    backend.register(...definitions);
    const worker = await backend.startWorker({ queues: [this.queue], ...options });
    return { backend, worker };
  }

  /** Starts `task-backend-worker` with the fixtures, and waits until it serves: it says so, or what it ran has killed it before it could. */
  async spawnWorker(args: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<WorkerProcess> {
    const here = dirname(fileURLToPath(import.meta.url));
    // Beside the built files when the suite runs from them, else from its sources: the fixtures are plain JavaScript either way.
    const fixtures = [join(here, "fixtures.js"), join(here, "../dist/fixtures.js")].find(existsSync) as string;
    const manifest = createRequire(import.meta.url).resolve("@task-backend/worker/package.json");
    const child = spawn(
      process.execPath,
      [join(dirname(manifest), "dist/cli.js"), "--queues", this.queue, "--tasks", fixtures, "--json", ...args],
      {
        env: { ...process.env, ...this.#engine.env, ...this.#sabotageEnv, ...env },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    this.#processes.push(child);
    let output = "";
    child.stdout.on("data", (data: Buffer) => (output += data.toString()));
    child.stderr.on("data", (data: Buffer) => (output += data.toString()));
    const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
    await this.until(
      () => `the worker process to serve; it said: ${output}`,
      () => {
        if (child.exitCode !== null) throw new Error(`The worker process exited with ${child.exitCode}: ${output}`);
        return output.includes(" runs on ") || child.signalCode !== null;
      },
      SPAWN_MS,
    );
    return { pid: child.pid as number, exited, output: () => output, kill: (signal) => child.kill(signal) };
  }

  /** Waits for a condition, looked at often. @throws Error naming what did not come true */
  async until(what: string | (() => string), condition: () => unknown, timeoutMs = 15_000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!(await condition())) {
      if (Date.now() > deadline) throw new Error(`Waited ${timeoutMs} ms for ${typeof what === "string" ? what : what()}.`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** The lines that tasks have written so far. */
  lines(): string[] {
    return existsSync(this.effects) ? readFileSync(this.effects, "utf8").split("\n").filter(Boolean) : [];
  }

  note(line: string): void {
    appendFileSync(this.effects, `${line}\n`);
  }

  async capabilities(): Promise<Capabilities> {
    return (await this.backend()).capabilities;
  }

  async close(): Promise<void> {
    for (const child of this.#processes) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
    for (const cleanup of this.#cleanups) await cleanup();
    await Promise.all(this.#backends.map((backend) => stopAndClose(backend)));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A case that failed may leave attempts that never end: they are not waited for. */
async function stopAndClose(backend: TaskBackend): Promise<void> {
  await Promise.race([backend.close(), new Promise((resolve) => setTimeout(resolve, 5_000).unref())]);
}

function changed(adapter: Adapter, { unsupported = [], coldTicks = false, onTick, onCall }: AdapterChanges): Adapter {
  const result: Adapter = {
    ...adapter,
    connect: async (signal) => {
      const capabilities = await adapter.connect(signal);
      const features = { ...capabilities.features, ...Object.fromEntries(unsupported.map((feature) => [feature, "unsupported"])) };
      return { ...capabilities, features };
    },
    startWorker: (request, runtime) => adapter.startWorker(request, coldTicks || onTick ? watched(runtime, coldTicks, onTick) : runtime),
  };
  if (!onCall) return result;
  const observe = <K extends keyof Adapter>(method: K): Adapter[K] => {
    const original = result[method] as (...args: unknown[]) => unknown;
    return ((...args: unknown[]) => {
      onCall(method);
      return original(...args);
    }) as Adapter[K];
  };
  return {
    ...result,
    submit: observe("submit"),
    get: observe("get"),
    wait: observe("wait"),
    cancel: observe("cancel"),
    signal: observe("signal"),
    startWorker: observe("startWorker"),
  };
}

function watched(runtime: WorkerRuntime, coldTicks: boolean, onTick: ((tick: Tick) => void) | undefined): WorkerRuntime {
  return {
    ...runtime,
    advance: (tick) => {
      // Only the part that is not the whole journal proves that the run was live.
      if (coldTicks && tick.from > 0) runtime.evict(tick.id);
      onTick?.(tick);
      return runtime.advance(tick);
    },
  };
}
