import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend, silentLogger } from "@task-backend/core";
import { sqlite } from "@task-backend/sqlite";
import { afterAll, expect, test } from "vitest";

// The command as an operator sees it: what it prints, what it exits with, what it answers an orchestrator.

const root = join(import.meta.dirname, "..");
const application = mkdtempSync(join(tmpdir(), "worker-command-"));
mkdirSync(join(application, "node_modules"));
symlinkSync(join(root, "node_modules/@task-backend"), join(application, "node_modules/@task-backend"));
writeFileSync(join(application, "package.json"), '{ "type": "module" }');
writeFileSync(
  join(application, "tasks.ts"),
  `import { defineTask } from "@task-backend/core";
   export const add = defineTask({ name: "add", queue: "sums", handler: async ({ a, b }: { a: number; b: number }) => a + b });
   export const fail = defineTask({ name: "fail", queue: "sums", retry: { attempts: 1 }, handler: async () => { throw new Error("on purpose"); } });
   export const leak = defineTask({ name: "leak", queue: "sums", handler: async () => { void Promise.reject(new Error("forgotten")); return 1; } });`,
);
writeFileSync(
  join(application, "copy.ts"),
  `import { defineTask } from "@task-backend/core"; export const add = defineTask({ name: "add", handler: async () => 1 });`,
);
const cleanups: (() => unknown)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups) await cleanup();
  rmSync(application, { recursive: true, force: true });
});

interface Command {
  output(): string;
  exited: Promise<number | null>;
  kill(signal: NodeJS.Signals): void;
}

function start(args: readonly string[], env: Record<string, string> = {}): Command {
  const child = spawn(process.execPath, [join(root, "packages/worker/dist/cli.js"), ...args], {
    cwd: application,
    env: { PATH: process.env["PATH"] ?? "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (data: Buffer) => (output += data.toString()));
  child.stderr.on("data", (data: Buffer) => (output += data.toString()));
  cleanups.push(() => void child.kill("SIGKILL"));
  return { output: () => output, exited: new Promise((resolve) => child.once("close", resolve)), kill: (signal) => child.kill(signal) };
}

async function run(args: readonly string[], env: Record<string, string> = {}): Promise<{ code: number | null; output: string }> {
  const command = start(args, env);
  return { code: await command.exited, output: command.output() };
}

const file = join(application, "tasks.db");
const env = { TASK_BACKEND_TYPE: "sqlite", TASK_BACKEND_URL: `sqlite:${file}` };
const usual = ["--queues", "sums", "--tasks", "./tasks.ts"];

test.concurrent("help and version exit 0", async () => {
  const [help, version] = await Promise.all([run(["--help"]), run(["--version"])]);
  expect(help).toMatchObject({ code: 0 });
  for (const flag of ["--queues", "--tasks", "--concurrency", "--name", "--grace", "--health-port", "--log-level", "--json", "--config"])
    expect(help.output).toContain(flag);
  expect(version).toEqual({ code: 0, output: "0.1.0\n" });
});

test.concurrent.each([
  ["an unknown flag", ["--queue", "a"], {}, /unknown option '--queue'.*Did you mean --queues/s],
  ["no tasks", ["--queues", "sums"], {}, /no tasks: add --tasks/],
  ["no queues", ["--tasks", "./tasks.ts"], {}, /no queues: add --queues sums, or set TASK_QUEUES/],
  [
    "TASK_QUEUES in production",
    ["--tasks", "./tasks.ts"],
    { NODE_ENV: "production", TASK_QUEUES: "sums" },
    /--queues sums \(with NODE_ENV=production the flag is required\)/,
  ],
  ["a bad number", [...usual, "--concurrency", "many"], {}, /Give a whole number from 1/],
  ["a bad grace", [...usual, "--grace", "long"], {}, /The grace of a worker is "long"/],
  ["an unknown backend", usual, { TASK_BACKEND_TYPE: "rabbit" }, /Unknown task backend "rabbit".*The types are sqlite/],
  ["a backend that is not installed", usual, { TASK_BACKEND_TYPE: "@acme/backend" }, /npm install @acme\/backend/],
  ["a duplicate task", [...usual, "./copy.ts"], {}, /"add" is defined twice: in \.\/tasks\.ts and in \.\/copy\.ts/],
  ["a module that is not there", ["--queues", "a", "--tasks", "./nowhere.ts"], {}, /There is no module "\.\/nowhere\.ts"/],
] as const)("wrong usage exits 2 with the fix: %s", async (_what, args, more, message) => {
  const { code, output } = await run(args, { ...env, ...more });
  expect(output).toMatch(message);
  expect(code).toBe(2);
});

test.concurrent("an engine that cannot be used exits 1", async () => {
  const { code, output } = await run(usual, { ...env, TASK_BACKEND_URL: "sqlite:/proc/tasks.db" });
  expect(output).toMatch(/cannot be opened/);
  expect(code).toBe(1);
});

test.concurrent("no secret of a URL is printed", async () => {
  const { output } = await run(usual, { ...env, TASK_BACKEND_URL: "redis://user:marked-secret@host:1/0?token=marked-secret" });
  expect(output).not.toContain("marked-secret");
});

test.concurrent(
  "serves: banner, a line an attempt, health for an orchestrator, warnings, a graceful stop",
  { timeout: 30_000 },
  async ({ expect }) => {
    const command = start([...usual, "--queues", "sums,empty", "--health-port", "0", "--name", "worker-7", "--concurrency", "3"], env);
    const lines = (): Record<string, unknown>[] =>
      command
        .output()
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    const line = async (pattern: RegExp): Promise<Record<string, unknown>> => {
      await expect.poll(() => lines().some(({ msg }) => pattern.test(String(msg))), { timeout: 15_000 }).toBe(true);
      return lines().find(({ msg }) => pattern.test(String(msg))) as Record<string, unknown>;
    };
    const banner = await line(/^Worker worker-7 runs on sqlite 3\.\d+\.\d+ at .*tasks\.db$/);
    expect(banner).toMatchObject({ queues: { sums: ["add", "fail", "leak"], empty: [] }, concurrency: 3 });
    await line(/Queue "empty" has no task of its own/);

    const health = `http://127.0.0.1:${String(banner["healthPort"])}`;
    expect(await Promise.all(["/live", "/ready", "/other"].map(async (path) => (await fetch(health + path)).status))).toEqual([
      200, 200, 404,
    ]);

    const backend = await createBackend(sqlite({ file }), { log: silentLogger });
    cleanups.push(() => backend.close());
    const sum = await backend.submit("add", { a: 1, b: 2 }, { queue: "sums" });
    expect(await sum.output({ timeout: "10s" })).toBe(3);
    expect(await line(/^add completed after \d+ ms$/)).toMatchObject({ id: sum.id, queue: "sums", attempt: 1, outcome: "completed" });
    await (await backend.submit("fail", null, { queue: "sums" })).output({ timeout: "10s" }).catch(() => {});
    expect(await line(/^fail failed after \d+ ms: on purpose$/)).toMatchObject({ level: 50, code: "TASK_FAILED" });
    // A promise that a handler forgot is logged, and takes nothing down.
    expect(await (await backend.submit("leak", null, { queue: "sums" })).output({ timeout: "10s" })).toBe(1);
    await line(/nobody handled it: Error: forgotten/);

    command.kill("SIGTERM");
    expect(await command.exited).toBe(0);
    await line(/^Stopped$/);
  },
);

test.concurrent(
  "queues from TASK_QUEUES and modules from a configuration file, outside production",
  { timeout: 30_000 },
  async ({ expect }) => {
    const config = join(application, "worker.config.json");
    writeFileSync(config, JSON.stringify({ worker: { modules: ["./tasks.ts"], concurrency: 4 } }));
    const command = start(["--config", config], {
      ...env,
      TASK_BACKEND_URL: `sqlite:${join(application, "other.db")}`,
      TASK_QUEUES: "sums, other",
    });
    await expect
      .poll(() => command.output(), { timeout: 15_000 })
      .toMatch(/"queues":\{"sums":\["add","fail","leak"\],"other":\[\]\},"concurrency":4/);
    command.kill("SIGINT");
    expect(await command.exited).toBe(0);
  },
);
