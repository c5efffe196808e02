import { spawn, type ChildProcess } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** Starts `task-backend-worker` with the tasks of the bench; resolves when it serves. */
export function startWorkerProcess(
  env: Readonly<Record<string, string>>,
  { queue = "bench", concurrency = 50 } = {},
): Promise<ChildProcess> {
  const cli = join(dirname(createRequire(import.meta.url).resolve("@task-backend/worker/package.json")), "dist/cli.js");
  const args = ["--queues", queue, "--tasks", join(here, "tasks.ts"), "--log-level", "info", "--json", "--concurrency", `${concurrency}`];
  return startProcess([cli, ...args], env, " runs on ");
}

/** Starts a Node process; resolves once it has printed `ready`. */
export async function startProcess(args: readonly string[], env: Readonly<Record<string, string>>, ready: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "inherit"] });
  await new Promise<void>((resolve, reject) => {
    child.stdout.on("data", (data: Buffer) => data.includes(ready) && resolve());
    child.once("exit", (code) => reject(new Error(`The worker exited with ${code}.`)));
  });
  return child;
}

export async function stopProcess(child: ChildProcess): Promise<void> {
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await exited;
}
