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

/** The time limit for the start of a worker process, on a machine that is busy with other cases. */
const SPAWN_MS = 60_000;

/** Changes to the adapter of a case. */
export interface AdapterChanges {
  readonly retentionMs?: number;
  /** Features that are declared unsupported, whatever the engine can do. */
  readonly unsupported?: readonly Feature[];
  /** Makes every tick replay its run from the beginning, as after a crash. */
  readonly coldTicks?: boolean;
  /** Called with each tick that reaches core. */
  readonly onTick?: (tick: Tick) => void;
  /** Called with the name of each method of the adapter. */
  readonly onCall?: (method: keyof Adapter) => void;
}

/** A separate process: a worker under the command that users run, or a program of the suite. */
export interface WorkerProcess {
  readonly pid: number;
  readonly exited: Promise<number | null>;
  /** Whether it has ended, by itself or by a signal. */
  ended(): boolean;
  /** The process's output so far. */
  output(): string;
  kill(signal: NodeJS.Signals): void;
}

/** The tools of a case; everything that it opens is closed when it ends. */
export class CaseContext {
  /** A queue that only this case uses. */
  readonly queue = `q-${randomBytes(5).toString("hex")}`;
  /** A file for side effects, one line each. */
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

  /** A new connected backend. */
  async backend(changes: AdapterChanges = {}, options: BackendOptions = {}): Promise<TaskBackend> {
    const adapter = this.#engine.createAdapter(changes.retentionMs === undefined ? undefined : { retentionMs: changes.retentionMs });
    return this.#connect(changed(adapter, changes), options);
  }

  /** A separate engine that can be made unreachable, and a backend on it. */
  async outage(options: BackendOptions): Promise<{ outage: Outage; backend: TaskBackend }> {
    const outage = await this.#engine.outage();
    this.#cleanups.push(() => outage.end());
    return { outage, backend: await this.#connect(outage.createAdapter(), options) };
  }

  /** A backend on each other instance of the same server, with the difference between the instances. */
  async apart(): Promise<readonly { readonly by: string; readonly backend: TaskBackend }[]> {
    const others = await this.#engine.apart();
    const connected = [];
    for (const other of others) connected.push({ by: other.by, backend: await this.#connect(other.createAdapter(), {}) });
    return connected;
  }

  async #connect(adapter: Adapter, options: BackendOptions): Promise<TaskBackend> {
    const backend = await createBackend(this.#sabotage(adapter), { log: silentLogger, ...options });
    this.#backends.push(backend);
    return backend;
  }

  /** A backend with these definitions, and a worker for the queue of the case. */
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

  /**
   * Starts `task-backend-worker` with the fixtures. Waits until it announces that it serves, or until a run has killed it before.
   * @param args replace the default arguments: `--queues` replaces the queue of the case
   */
  async spawnWorker(args: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<WorkerProcess> {
    const manifest = createRequire(import.meta.url).resolve("@task-backend/worker/package.json");
    const command = [join(dirname(manifest), "dist/cli.js"), "--queues", this.queue, "--tasks", built("fixtures"), "--json", ...args];
    return this.#serving(this.#spawn(command, env));
  }

  /** Starts a program with an embedded worker for the fixtures, as in `docs`, and waits until it serves. */
  async spawnEmbedded(): Promise<WorkerProcess> {
    return this.#serving(this.spawnProgram("serve"));
  }

  /** Starts one of the suite's programs (`programs.ts`) with the queue of the case; with `nowhere` it finds no engine. */
  spawnProgram(name: string, { nowhere = false } = {}): WorkerProcess {
    return this.#spawn([built("programs"), name, this.queue], nowhere ? this.#engine.nowhere : {});
  }

  async #serving(worker: WorkerProcess): Promise<WorkerProcess> {
    let code: number | null = null;
    void worker.exited.then((exitCode) => (code = exitCode));
    await this.until(
      () => `the worker process to serve; it said: ${worker.output()}`,
      () => {
        if (code !== null) throw new Error(`The worker process exited with ${code}: ${worker.output()}`);
        return worker.output().includes(" runs on ") || worker.ended();
      },
      SPAWN_MS,
    );
    return worker;
  }

  #spawn(args: readonly string[], env: Readonly<Record<string, string>>): WorkerProcess {
    const child = spawn(process.execPath, args, {
      env: { ...process.env, ...this.#engine.env, ...this.#sabotageEnv, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#processes.push(child);
    let output = "";
    child.stdout.on("data", (data: Buffer) => (output += data.toString()));
    child.stderr.on("data", (data: Buffer) => (output += data.toString()));
    const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
    const ended = (): boolean => child.exitCode !== null || child.signalCode !== null;
    return { pid: child.pid as number, exited, ended, output: () => output, kill: (signal) => child.kill(signal) };
  }

  /** Waits for a condition, which is checked often. @throws Error naming the condition that did not come true */
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

/** Closes a backend, with a time limit: a failed case may leave attempts that never end. */
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
      // A partial journal means that the run was live.
      if (coldTicks && tick.from > 0) runtime.evict(tick.id);
      onTick?.(tick);
      return runtime.advance(tick);
    },
  };
}

/** The built file, which is beside this file or in the build of these sources: other processes run plain JavaScript. */
function built(name: string): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return [join(here, `${name}.js`), join(here, `../dist/${name}.js`)].find(existsSync) as string;
}
