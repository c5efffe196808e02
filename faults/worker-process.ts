import { spawn, type ChildProcess } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Road } from "./ground.ts";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);

/** A place for a worker: when its process is killed, another is started there. */
export class WorkerPlace {
  readonly road: Road;
  #child: ChildProcess | undefined;
  #frozen = false;
  #closing = false;
  /** What went wrong beyond the faults: an exit that nobody asked for. */
  readonly surprises: string[] = [];

  constructor(road: Road) {
    this.road = road;
  }

  /** Resolves when it serves, or has ended before. */
  async start(): Promise<void> {
    if (this.#closing || (this.#child && !hasExited(this.#child))) return;
    const cli = join(dirname(require.resolve("@task-backend/worker/package.json")), "dist/cli.js");
    const args = ["--queues", "faults", "--tasks", join(here, "tasks.ts"), "--concurrency", "10", "--log-level", "info", "--json"];
    const clock = ["--import", join(here, "clock.mjs")];
    const child = spawn(process.execPath, [...clock, cli, ...args], {
      env: { ...process.env, ...this.road.env, NODE_ENV: "production" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    this.#frozen = false;
    let said = "";
    await new Promise<void>((resolve) => {
      const hear = (data: Buffer): void => {
        said = `${said}${data.toString()}`.slice(-4_000);
        if (said.includes(" runs on ")) resolve();
      };
      child.stdout.on("data", hear);
      child.stderr.on("data", hear);
      child.once("exit", (code, signal) => {
        resolve();
        if (this.#child !== child || this.#closing || signal === "SIGKILL") return;
        // An engine that is away when a worker starts is a reason to exit, and whoever runs it starts it again.
        if (said.includes(" runs on "))
          this.surprises.push(`a worker exited with ${code ?? signal}: ${said.split("\n").slice(-4).join(" | ")}`);
        setTimeout(() => void this.start(), 500);
      });
    });
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || hasExited(child)) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await exited;
  }

  freeze(): void {
    this.#frozen = this.#child?.kill("SIGSTOP") ?? false;
  }

  thaw(): void {
    if (this.#frozen) this.#child?.kill("SIGCONT");
    this.#frozen = false;
  }

  /** Its wall clock jumps; a second call puts it right. */
  jump(): void {
    this.#child?.kill("SIGUSR2");
  }

  /** By a signal, as operators do. Answers how it ended. */
  async stop(): Promise<void> {
    this.#closing = true;
    const child = this.#child;
    if (!child || hasExited(child)) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    const late = setTimeout(() => {
      this.surprises.push("a worker did not stop within 60 s of SIGTERM");
      child.kill("SIGKILL");
    }, 60_000);
    await exited;
    clearTimeout(late);
  }
}

function hasExited({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}
