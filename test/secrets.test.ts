import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { inspect } from "node:util";
import { bullmq, type BullmqOptions } from "@task-backend/bullmq";
import { chain, createBackend, defineTask, getBackend, type Logger } from "@task-backend/core";
import type { Adapter } from "@task-backend/core/adapter";
import { hatchet } from "@task-backend/hatchet";
import { temporal } from "@task-backend/temporal";
import { Redis } from "ioredis";
import { afterAll, describe, expect, test } from "vitest";
import { discard } from "../engines/index.ts";
import { redis } from "../engines/redis.ts";
import { onEngine } from "./engines/required.ts";

/*
 * Puts a marked secret into every connection option, and looks for it wherever people may look: in errors with all their
 * properties, in logs, in the output of the worker command, and in stored data.
 */

const MARK = "s3cret-Mark";
const require = createRequire(import.meta.url);
const folder = mkdtempSync(join(tmpdir(), "task-backend-secrets-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const pem = join(folder, "marked.pem");
writeFileSync(pem, `-----BEGIN PRIVATE KEY-----\n${MARK}\n-----END PRIVATE KEY-----\n`);
const claims = Buffer.from(JSON.stringify({ sub: "707d0855-80ab-4e1f-a156-f1c4546cbf52", secret: MARK })).toString("base64url");
const token = `e30.${claims}.${MARK}`;
/** A third party's adapter that quotes its options in every way. */
const quotes = join(folder, "quotes.mjs");
writeFileSync(
  quotes,
  `export const createAdapter = ({ url }) => {
     const cause = Object.assign(new Error("cannot parse " + url), { input: url, options: { nested: { url, password: decodeURIComponent(url).split(/[:@]/)[2] } } });
     throw new AggregateError([cause], "no way to " + url, { cause });
   };`,
);

/** An address where nothing listens. */
const NOWHERE = "127.0.0.1:1";

const adapters: readonly (readonly [string, () => Adapter])[] = [
  ["redis, a URL", () => bullmq({ url: `redis://user:${MARK}@${NOWHERE}/0?x=${MARK}` })],
  [
    "redis, a URL with an option that does not exist",
    () => bullmq({ url: `redis://:${MARK}@${NOWHERE}`, password: MARK } as BullmqOptions),
  ],
  ["redis, over TLS", () => bullmq({ url: `rediss://user:${MARK}@${NOWHERE}` })],
  ["postgres, a URL", () => bullmq({ url: `postgres://user:${MARK}@${NOWHERE}/db` })],
  ["a URL of another kind", () => bullmq({ url: `mysql://user:${MARK}@${NOWHERE}/db` })],
  ["temporal, an API key", () => temporal({ address: NOWHERE, apiKey: MARK })],
  ["temporal, a key file", () => temporal({ address: NOWHERE, tls: { clientCertificate: pem, clientKey: pem } })],
  ["temporal, a URL with a password", () => temporal({ url: `temporal://user:${MARK}@${NOWHERE}/default` })],
  ["hatchet, a token", () => hatchet({ token, hostPort: NOWHERE, apiUrl: `http://${NOWHERE}`, tls: "none" })],
  ["hatchet, a token that is none", () => hatchet({ token: MARK })],
  [
    "hatchet, a key file",
    () => hatchet({ token, hostPort: NOWHERE, apiUrl: `http://${NOWHERE}`, tls: "mtls", keyFile: pem, certFile: pem, caFile: pem }),
  ],
  ["hatchet, a URL with a password", () => hatchet({ url: `hatchet://user:${MARK}@${NOWHERE}`, token })],
];

describe("no secret is shown", () => {
  test.concurrent.for(adapters)("%s", { timeout: 30_000 }, async ([, make]) => {
    const lines: string[] = [];
    const write = (message: string, fields?: unknown): void => void lines.push(`${message} ${inspect(fields, { depth: 20 })}`);
    const log: Logger = { debug: write, info: write, warn: write, error: write };
    const error = await Promise.resolve()
      .then(() => createBackend(make(), { log, callTimeout: "3s" }))
      .then(
        () => undefined,
        (thrown: unknown) => thrown as Error,
      );
    expect(error).toBeInstanceOf(Error);
    expect(everything(error)).not.toContain(MARK);
    expect(lines.join("\n")).not.toContain(MARK);
  });

  test.concurrent.for([
    ["bullmq", `redis://:pa/${MARK}@${NOWHERE}`],
    ["bullmq", `redis://user:12?${MARK}@${NOWHERE}`],
    ["bullmq", `rediss://user:a#${MARK}@${NOWHERE}`],
    ["bullmq", `postgres://user:pa/${MARK}@${NOWHERE}/postgres`],
    ["bullmq", `postgres://user:pa%2F${MARK}@${NOWHERE}/postgres`],
    ["bullmq", `user:${MARK}@${NOWHERE}`],
    ["temporal", `temporal://user:pa/${MARK}@${NOWHERE}/default`],
    ["hatchet", `hatchet://user:pa/${MARK}@${NOWHERE}`],
    ["sqlite", `redis://:pa/${MARK}@${NOWHERE}`],
    ["sqlit", `redis://:pa/${MARK}@${NOWHERE}`],
    [`redis://:pa/${MARK}@${NOWHERE}`, undefined],
    ["quotes", `quotes://user:pa/${MARK}@${NOWHERE}?token=${MARK}`],
  ] as const)("getBackend() on %s with a URL that no parser takes: %s", { timeout: 30_000 }, async ([name, url]) => {
    const type =
      name === "quotes" ? quotes : ["bullmq", "temporal", "hatchet"].includes(name) ? require.resolve(`@task-backend/${name}`) : name;
    const lines: string[] = [];
    const write = (message: string, fields?: unknown): void => void lines.push(`${message} ${inspect(fields, { depth: 20 })}`);
    const log: Logger = { debug: write, info: write, warn: write, error: write };
    const options = { type, config: false as const, callTimeout: "3s" as const, log, ...(url !== undefined && { url }) };
    const error = await getBackend(options).then(
      () => undefined,
      (thrown: unknown) => thrown as Error,
    );
    expect(error).toBeInstanceOf(Error);
    expect(everything(error)).not.toContain(MARK);
    expect(lines.join("\n")).not.toContain(MARK);
  });

  test.concurrent.for([
    ["bad.yaml", `type: bullmq\nurl: "redis://:${MARK}@h"\n  - nothing: [`],
    ["bad.json", `{ "type": "bullmq", "url": "redis://:${MARK}@h" "x": 1 }`],
    ["bad.ts", `export default { type: "bullmq", url: "redis://:${MARK}@h" oops };`],
    ["bad.mjs", `export default { type: "bullmq", url: "redis://:${MARK}@h" oops };`],
    ["unknown.yaml", `type: bullmq\nurl: redis://:${MARK}@h\nretentoin: 1d`],
    ["wrong.yaml", `type: bullmq\nurl: [redis://:${MARK}@h]`],
    ["engine.yaml", `type: ${require.resolve("@task-backend/bullmq")}\nurl: "redis://:pa/${MARK}@${NOWHERE}"`],
  ] as const)(
    "task-backend-worker prints none of the configuration file %s, which it cannot use",
    { timeout: 40_000 },
    async ([name, text]) => {
      writeFileSync(join(folder, name), text);
      const { code, output } = await command(["--config", join(folder, name), "--queues", "default", "--tasks", tasksModule()], {});
      expect(code).not.toBe(0);
      expect(
        output
          .trim()
          .split("\n")
          .filter((line) => !line.startsWith("{")),
      ).toHaveLength(1);
      expect(output).not.toContain(MARK);
    },
  );

  test.concurrent.for([
    ["bullmq", `redis://user:${MARK}@${NOWHERE}/0`],
    ["bullmq", `redis://user:pa/${MARK}@${NOWHERE}/0`],
    ["bullmq", `postgres://user:${MARK}@${NOWHERE}/db`],
    ["bullmq", `redis://user:${MARK}@${NOWHERE}/0?nothing=${MARK}`],
    ["hatchet", `hatchet://${NOWHERE}`],
  ] as const)("task-backend-worker on %s at %s prints none", { timeout: 40_000 }, async ([type, url]) => {
    const { code, output } = await command(["--queues", "default", "--tasks", tasksModule(), "--log-level", "debug"], {
      TASK_BACKEND_TYPE: require.resolve(`@task-backend/${type}`),
      TASK_BACKEND_URL: url,
      HATCHET_CLIENT_TOKEN: token,
      HATCHET_CLIENT_API_URL: `http://${NOWHERE}`,
      HATCHET_CLIENT_TLS_STRATEGY: "none",
    });
    expect(code).not.toBe(0);
    expect(output).not.toBe("");
    expect(output).not.toContain(MARK);
  });
});

onEngine("redis", "REDIS_URL", "secrets in what is stored", () => {
  test("a password is nowhere in what is stored, nor in errors and logs of runs", async () => {
    const server = await redis.start(redis.find() as string);
    const admin = new Redis(server.env["REDIS_URL"] as string);
    try {
      await admin.acl("SETUSER", "marked", "on", `>${MARK}`, "~*", "&*", "+@all");
      const url = new URL(server.env["REDIS_URL"] as string);
      Object.assign(url, { username: "marked", password: MARK });
      const lines: string[] = [];
      const write = (message: string, fields?: unknown): void => void lines.push(`${message} ${inspect(fields, { depth: 20 })}`);
      const log: Logger = { debug: write, info: write, warn: write, error: write };
      const backend = await getBackend({ type: require.resolve("@task-backend/bullmq"), url: url.href, log });
      const fails = defineTask({
        name: "fails",
        handler: async () => {
          throw new Error("no");
        },
      });
      const double = defineTask({ name: "double", handler: async (n: number) => 2 * n });
      const twice = chain("twice", [double, double]);
      await backend.register(fails, double, twice).startWorker({ queues: ["default"] });
      const output = await (await backend.submit(twice, 3)).output({ timeout: "10s" });
      expect(output).toBe(12);
      const failure = await (await backend.submit(fails, null)).output({ timeout: "10s" }).catch((error: unknown) => error);
      expect(everything(failure)).not.toContain(MARK);
      expect(lines.length).toBeGreaterThan(0);
      expect(lines.join("\n")).not.toContain(MARK);
      const stored = await dump(admin);
      expect(stored).toContain("twice");
      expect(stored).not.toContain(MARK);
      await backend.close();
    } finally {
      admin.disconnect();
      await discard(server);
    }
  }, 30_000);
});

function tasksModule(): string {
  const path = join(folder, "tasks.mjs");
  const core = JSON.stringify(require.resolve("@task-backend/core"));
  writeFileSync(path, `import { defineTask } from ${core}; export const t = defineTask({ name: "t", handler: async () => 1 });`);
  return path;
}

/** Runs the worker command until it ends. */
async function command(args: readonly string[], env: NodeJS.ProcessEnv): Promise<{ code: number | null; output: string }> {
  const cli = join(dirname(require.resolve("@task-backend/worker/package.json")), "dist/cli.js");
  const child = spawn(process.execPath, [cli, ...args], { env: { ...process.env, ...env } });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => (output += data.toString()));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, output };
}

/** All properties of an error, as a logger might print them. */
function everything(error: unknown): string {
  const seen = inspect(error, { depth: 20, showHidden: true, maxStringLength: null, maxArrayLength: null });
  return `${seen}\n${String(error)}\n${JSON.stringify(error)}`;
}

/** Every key with its value, as text. */
async function dump(client: Redis): Promise<string> {
  const lines: string[] = [];
  for (const key of await client.keys("*")) {
    const type = await client.type(key);
    const read: Readonly<Record<string, () => Promise<unknown>>> = {
      string: () => client.get(key),
      hash: () => client.hgetall(key),
      list: () => client.lrange(key, 0, -1),
      set: () => client.smembers(key),
      zset: () => client.zrange(key, 0, -1),
      stream: () => client.xrange(key, "-", "+"),
    };
    lines.push(`${key} ${JSON.stringify(await read[type]?.())}`);
  }
  return lines.join("\n");
}
