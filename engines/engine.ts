import { spawn, type SpawnOptions } from "node:child_process";
import { randomInt } from "node:crypto";
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

/** Variables that lead clients to a running engine. */
export type Environment = Readonly<Record<string, string>>;

/** A server process that was started here. */
export interface Server {
  readonly pid: number;
  /** Its own, with its data and its log. */
  readonly folder: string;
  readonly env: Environment;
  /** Another server, started for this one alone. */
  readonly needs?: Server;
}

/** How one kind of real server is found, installed and started, without Docker. */
export interface Engine {
  readonly name: string;
  /** The variable that says where a running one is. */
  readonly variable: string;
  /** The folder of its binaries, if they are installed. */
  find(): string | undefined;
  /** Installs from a package registry. Answers with the folder. @throws Error saying what people can do */
  install(say: (line: string) => void): Promise<string>;
  /** Starts one on loopback and a free port; resolves when it answers. `keep` outlives this process. */
  start(binaries: string, options?: StartOptions): Promise<Server>;
  /** @throws when it does not answer */
  probe(env: Environment): Promise<void>;
}

export interface StartOptions {
  readonly keep?: boolean;
  /** Of a server that was stopped, to go on with its data on its port. */
  readonly again?: Pick<Server, "folder"> & { readonly port: number };
}

const ANSWER_MS = 90_000;
const PORTS = [15_000, 32_000] as const;

/** The folder in PATH, or among others, that holds a program. */
export function findProgram(program: string, others: readonly string[] = []): string | undefined {
  return [...(process.env["PATH"] ?? "").split(delimiter), ...others].find((folder) => folder !== "" && existsSync(join(folder, program)));
}

/**
 * A port of loopback that nobody listens on. Below those that systems give to outgoing connections: one of these would take the
 * port of a server that is away for a moment.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(...PORTS);
    if (await isFree(port)) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const listens = await new Promise<boolean>((resolve) =>
    server
      .once("error", () => resolve(false))
      .once("listening", () => resolve(true))
      .listen(port, "127.0.0.1"),
  );
  await new Promise((resolve) => server.close(resolve));
  return listens;
}

export function newFolder(name: string): string {
  return mkdtempSync(join(tmpdir(), `task-backend-${name}-`));
}

/** Starts a server whose output goes to a log in its folder. */
export function launch(
  command: string,
  args: readonly string[],
  folder: string,
  { keep = false, ...options }: SpawnOptions & { keep?: boolean } = {},
): number {
  const log = openSync(join(folder, "server.log"), "a");
  const child = spawn(command, args, { ...options, detached: keep, stdio: ["ignore", log, log] });
  closeSync(log);
  child.on("error", () => {});
  child.unref();
  if (child.pid === undefined) throw new Error(`${command} cannot be started.`);
  return child.pid;
}

/** Starts anew, on other ports, what did not start: a free port may be another's by the time it is used. */
export async function onFreePorts<T>(start: () => Promise<T>): Promise<T> {
  for (let left = 2; ; left--) {
    try {
      return await start();
    } catch (error) {
      if (left === 0 || !/address already in use/i.test((error as Error).message)) throw error;
    }
  }
}

/** Waits until a server answers. @throws Error with the end of its log */
export async function untilAnswers(name: string, server: Server, probe: () => Promise<void>): Promise<void> {
  const deadline = Date.now() + ANSWER_MS;
  for (;;) {
    try {
      return await probe();
    } catch (error) {
      if (alive(server.pid) && Date.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        continue;
      }
      const log = readFileSync(join(server.folder, "server.log"), "utf8").trim().split("\n").slice(-5).join("\n");
      throw new Error(`${name} did not start (${(error as Error).message}). Its log ends with:\n${log}`, { cause: error });
    }
  }
}

export function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    if (!existsSync(`/proc/${pid}/stat`)) return true;
    // Nobody may come for a process that has ended. Before its last thread has, it holds its ports.
    const hasEnded = /^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
    return !hasEnded || readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}

/** Ends a server; its data stays. */
export async function stop({ pid }: Pick<Server, "pid">, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  const send = (name: NodeJS.Signals): void => {
    if (alive(pid)) process.kill(pid, name);
  };
  send(signal);
  const killAt = Date.now() + 10_000;
  while (alive(pid)) {
    if (Date.now() > killAt) send("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
