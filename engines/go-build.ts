import { spawn } from "node:child_process";
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { findProgram } from "./engine.ts";

/** A server that is built from its Go module, with what `go build` is given. */
export interface GoServer {
  readonly module: string;
  readonly version: string;
  /** Packages of the module, and the name of the binary that each gives. */
  readonly binaries: Readonly<Record<string, string>>;
  readonly ldflags?: string;
}

/** Where built servers are kept, so that another clone builds nothing. */
export const CACHE = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "task-backend/engines");

function builtFolder({ module, version }: GoServer): string {
  return join(CACHE, `${module.replaceAll("/", "-")}-${version}`);
}

/** The folder of its binaries, if all are built. */
export function findBuilt(server: GoServer): string | undefined {
  const folder = builtFolder(server);
  return Object.values(server.binaries).every((name) => existsSync(join(folder, name))) ? folder : undefined;
}

/** Builds it from the Go module proxy. Takes minutes. @throws Error saying what people can do */
export async function build(server: GoServer, say: (line: string) => void): Promise<string> {
  const { module, version, binaries, ldflags } = server;
  const go = findProgram("go", ["/usr/local/go/bin"]);
  if (go === undefined) throw new Error(`install Go 1.26 or newer: ${module}@${version} is built from its source`);
  say(`Building ${module}@${version} (some minutes, once on this machine)`);
  const folder = builtFolder(server);
  mkdirSync(folder, { recursive: true });
  const download = JSON.parse(await run(join(go, "go"), ["mod", "download", "-json", `${module}@${version}`], folder)) as { Dir: string };
  for (const [path, name] of Object.entries(binaries)) {
    // Under its name only when it is whole: another process may look for it.
    const unfinished = join(folder, `${name}.${process.pid}`);
    await run(join(go, "go"), ["build", ...(ldflags === undefined ? [] : ["-ldflags", ldflags]), "-o", unfinished, path], download.Dir);
    renameSync(unfinished, join(folder, name));
  }
  return folder;
}

function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    let [out, errors] = ["", ""];
    child.stdout.on("data", (data: Buffer) => (out += data.toString()));
    child.stderr.on("data", (data: Buffer) => (errors += data.toString()));
    child.once("error", reject);
    child.once("exit", (code) =>
      code === 0 ? resolve(out) : reject(new Error(`${command} ${args.slice(0, 2).join(" ")} failed: ${errors.trim().slice(-600)}`)),
    );
  });
}
