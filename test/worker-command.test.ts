import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend, silentLogger, type Run } from "@task-backend/core";
import { sqlite } from "@task-backend/sqlite";
import { afterAll, expect, test } from "vitest";

// Tests the command as an operator sees it: its output, its exit code, and its answers to an orchestrator.

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
writeFileSync(join(application, "throws.ts"), `export const a: number = 1;\nthrow new Error("at\\nload");`);
writeFileSync(join(application, "syntax.mjs"), "export const a = 1;\nexport const b = ;");
writeFileSync(
  join(application, "slow.mjs"),
  `console.log("loading"); await new Promise((resolve) => setTimeout(resolve, 60_000)); export const a = 1;`,
);
writeFileSync(
  join(application, "more.ts"),
  `import { defineTask, getBackend } from "@task-backend/core";
   import { writeFileSync } from "node:fs";
   export const parent = defineTask({ name: "parent", queue: "more", retry: { attempts: 1 }, handler: async () => {
     await using backend = await getBackend();
     return (await backend.submit("child", null, { queue: "more" })).id;
   } });
   export const child = defineTask({ name: "child", queue: "more", handler: async () => 7 });
   export const caused = defineTask({ name: "caused", queue: "more", retry: { attempts: 1 }, handler: async () => {
     const refused = [new Error("connect ECONNREFUSED ::1:1"), new Error("connect ECONNREFUSED 127.0.0.1:1")];
     throw new TypeError("fetch failed", { cause: new AggregateError(refused, "") });
   } });
   export const logs = defineTask({ name: "logs", queue: "more", handler: async (_: null, { log }) => {
     const circle: Record<string, unknown> = { big: 12345678901234567890n, level: "mine", at: new Map([["a", new Set([1])]]) };
     circle.self = circle;
     circle.within = Object.defineProperty({}, "bad", { enumerable: true, get() { throw new Error("getter"); } });
     const { proxy, revoke } = Proxy.revocable({}, {});
     revoke();
     log.info("odd", circle);
     log.warn("odder", { proxy, error: new Error("outer", { cause: new Error("inner") }), map: circle.at });
     log.error("oddest", proxy as never);
     log.info(5n as never, null as never);
     return 1;
   } });
   export const deaf = defineTask({ name: "deaf", queue: "more", handler: async () => {
     writeFileSync("deaf.txt", "begun");
     await new Promise((resolve) => setTimeout(resolve, 60_000));
   } });`,
);
const cleanups: (() => unknown)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups) await cleanup();
  rmSync(application, { recursive: true, force: true });
});

/** The lines of a JSON log. */
function linesOf(output: string): Record<string, unknown>[] {
  return output
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

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
  ["a typing error in the backend", usual, { TASK_BACKEND_TYPE: "sqlit" }, /Did you mean "sqlite"\?/],
  ["a backend that is not installed", usual, { TASK_BACKEND_TYPE: "@acme/backend" }, /Nothing of that name is installed in/],
  ["a blank name", [...usual, "--name", " "], {}, /Give a name, or leave the option out/],
  ["a port that is none", [...usual, "--health-port", "65536"], {}, /Give a whole number from 0 to 65535/],
  ["blank queues", ["--tasks", "./tasks.ts", "--queues", ","], { TASK_QUEUES: " , " }, /no queues: add --queues sums/],
  ["a module that throws", [...usual, "./throws.ts"], {}, /"\.\/throws\.ts" failed to load: at load \(at \/.*throws\.ts:2:7\)/],
  ["a module with a syntax error", [...usual, "./syntax.mjs"], {}, /failed to load: .* \(at \/.*syntax\.mjs:2:\d+\)/],
  ["a duplicate task", [...usual, "./copy.ts"], {}, /"add" is defined twice: in \.\/tasks\.ts and in \.\/copy\.ts/],
  ["a module that is not there", ["--queues", "a", "--tasks", "./nowhere.ts"], {}, /There is no module "\.\/nowhere\.ts"/],
] as const)("wrong usage exits 2 with the fix: %s", async (_what, args, more, message) => {
  const { code, output } = await run(args, { ...env, ...more });
  expect(output).toMatch(message);
  expect(
    output
      .trim()
      .split("\n")
      .filter((line) => !line.startsWith("{")),
  ).toHaveLength(1);
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
    const lines = (): Record<string, unknown>[] => linesOf(command.output());
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
    // A promise that a handler forgot is logged and ends nothing.
    expect(await (await backend.submit("leak", null, { queue: "sums" })).output({ timeout: "10s" })).toBe(1);
    await line(/"leak" was rejected and nobody handled it in time: Error: forgotten/);

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

test.concurrent("a signal while a module loads ends it with 0, and a second one at once", { timeout: 30_000 }, async ({ expect }) => {
  const command = start(["--queues", "a", "--tasks", "./slow.mjs"], { ...env, TASK_BACKEND_URL: "sqlite::memory:" });
  await expect.poll(() => command.output(), { timeout: 15_000 }).toContain("loading");
  command.kill("SIGTERM");
  expect(await command.exited).toBe(0);
  expect(command.output()).toContain("stopped before the worker had started");
});

test.concurrent("a signal while it waits for an engine ends it with 0", { timeout: 30_000 }, async ({ expect }) => {
  // This server accepts connections and never answers.
  const silent = createServer().listen(0);
  await once(silent, "listening");
  cleanups.push(() => silent.close());
  const connected = once(silent, "connection");
  const url = `redis://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const command = start(usual, { TASK_BACKEND_TYPE: "bullmq", TASK_BACKEND_URL: url });
  const [socket] = (await connected) as [Socket];
  cleanups.push(() => socket.destroy());
  command.kill("SIGINT");
  expect(await command.exited).toBe(0);
});

test.concurrent(
  "a health port in use is one line and exit 1; while it starts it is live and not ready",
  { timeout: 30_000 },
  async ({ expect }) => {
    const command = start(["--queues", "a", "--tasks", "./slow.mjs", "--health-port", "0", "--log-level", "debug"], {
      ...env,
      TASK_BACKEND_URL: "sqlite::memory:",
    });
    await expect.poll(() => command.output(), { timeout: 15_000 }).toContain("loading");
    const other = createServer().listen(0);
    await once(other, "listening");
    cleanups.push(() => other.close());
    const port = String((other.address() as AddressInfo).port);
    const refused = await run([...usual, "--health-port", port], env);
    expect(refused.code).toBe(1);
    expect(refused.output).toBe(
      `task-backend-worker: --health-port ${port} is in use by another program; give another port, or 0 for any that is free\n`,
    );
    command.kill("SIGTERM");
    expect(await command.exited).toBe(0);
  },
);

test.concurrent(
  "getBackend() in a handler is the worker's own, and stays open; lines tell causes and hold odd values",
  { timeout: 40_000 },
  async ({ expect }) => {
    const config = join(application, "more.config.yaml");
    const database = join(application, "more.db");
    writeFileSync(config, `type: sqlite\nurl: "sqlite:${database}"\ntasks: { chidl: { timeout: 1m } }\n`);
    const command = start(["--config", config, "--queues", "more", "--tasks", "./more.ts"]);
    const line = async (pattern: RegExp): Promise<Record<string, unknown>> => {
      await expect.poll(() => linesOf(command.output()).some(({ msg }) => pattern.test(String(msg))), { timeout: 15_000 }).toBe(true);
      return linesOf(command.output()).find(({ msg }) => pattern.test(String(msg))) as Record<string, unknown>;
    };
    await line(/runs on sqlite/);
    await line(/has no task "chidl", for which a policy is configured; did you mean "child"\?$/);
    const backend = await createBackend(sqlite({ file: database }), { log: silentLogger });
    cleanups.push(() => backend.close());
    const submit = (name: string): Promise<Run> => backend.submit(name, null, { queue: "more" });
    for (let times = 0; times < 2; times++) {
      const id = (await (await submit("parent")).output({ timeout: "10s" })) as string;
      expect(await (await backend.getRun(id)).output({ timeout: "10s" })).toBe(7);
    }

    await (await submit("caused")).output({ timeout: "10s" }).catch(() => {});
    const failed = await line(
      /^caused failed after \d+ ms: fetch failed: connect ECONNREFUSED ::1:1; connect ECONNREFUSED 127\.0\.0\.1:1$/,
    );
    expect(failed).toMatchObject({
      code: "TASK_FAILED",
      error: {
        name: "TypeError",
        stack: expect.stringMatching(/fetch failed\n +at .*more\.ts/) as string,
        cause: { name: "AggregateError", errors: [{ message: "connect ECONNREFUSED ::1:1" }, {}] },
      },
    });

    expect(await (await submit("logs")).output({ timeout: "10s" })).toBe(1);
    expect(await line(/^odd$/)).toMatchObject({
      level: 30,
      level_: "mine",
      big: "12345678901234567890n",
      self: { self: "[circular]" },
      within: { bad: "[unreadable]" },
      at: { a: [1] },
    });
    expect(await line(/^odder$/)).toMatchObject({ proxy: "[unreadable]", error: { message: "outer", cause: { message: "inner" } } });
    expect(await line(/^oddest$/)).toMatchObject({ level: 50 });
    await line(/^"5n"$/);

    // This handler ignores its signal, so only the operator's second signal ends it.
    await submit("deaf");
    await expect.poll(() => existsSync(join(application, "deaf.txt")), { timeout: 10_000 }).toBe(true);
    command.kill("SIGTERM");
    await line(/^SIGTERM: stopping, running attempts may finish/);
    command.kill("SIGINT");
    expect(await command.exited).toBe(0);
    await line(/^SIGINT: stopping at once$/);
  },
);
