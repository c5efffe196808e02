import { existsSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { findProgram, freePort, launch, newFolder, untilAnswers, type Engine, type Server } from "./engine.ts";
import { installPackages } from "./packages.ts";

const PROGRAMS = ["redis-server", "valkey-server"];

/** Redis, or Valkey where that is what is installed. */
export const redis: Engine = {
  name: "redis",
  variable: "REDIS_URL",

  find: () => PROGRAMS.map((program) => findProgram(program)).find((folder) => folder !== undefined),

  install: async (say) => {
    await installPackages(["redis-server"], say);
    const folder = redis.find();
    if (folder === undefined) throw new Error("redis-server was installed and cannot be found");
    return folder;
  },

  start: async (binaries, { keep = false, again } = {}) => {
    const folder = again?.folder ?? newFolder("redis");
    const port = again?.port ?? (await freePort());
    const program = PROGRAMS.map((name) => join(binaries, name)).find(existsSync) as string;
    // What it has acknowledged survives a restart, as it must for a queue.
    const durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"];
    const place = ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", folder, "--set-proc-title", "no"];
    const pid = launch(program, [...place, ...durable], folder, { keep });
    const server: Server = { pid, folder, env: { REDIS_URL: `redis://127.0.0.1:${port}` } };
    await untilAnswers("redis", server, () => redis.probe(server.env));
    return server;
  },

  probe: async (env) => {
    const client = new Redis(env["REDIS_URL"] as string, { lazyConnect: true, retryStrategy: () => null, connectTimeout: 5_000 });
    client.on("error", () => {});
    try {
      await client.connect();
      await client.ping();
    } finally {
      client.disconnect();
    }
  },
};
