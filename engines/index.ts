import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { alive, stop, type Engine, type Environment, type Server } from "./engine.ts";
import { CACHE } from "./go-build.ts";
import { hatchet } from "./hatchet.ts";
import { postgres } from "./postgres.ts";
import { redis } from "./redis.ts";
import { temporal, temporal129 } from "./temporal.ts";

/** Every engine that needs a server, by name. */
export const engines: Readonly<Record<string, Engine>> = { redis, postgres, temporal, hatchet };

/** Older servers that stand in for those: only when they are asked for by name. */
export const olderEngines: Readonly<Record<string, Engine>> = { [temporal129.name]: temporal129 };

const CHECKOUT = createHash("sha256")
  .update(fileURLToPath(import.meta.url))
  .digest("hex")
  .slice(0, 12);

/** What `up` has started in this checkout, until `down`. Not within it: installing again must not forget a server. */
const STATE = join(CACHE, "up", CHECKOUT);

export interface Available {
  readonly engine: Engine;
  readonly env: Environment;
  /** Where it came from: its variable, an earlier `up`, or this call. */
  readonly from: "variable" | "up" | "started";
  readonly server?: Server;
}

/**
 * An engine that answers: the one its variable names, the one that `up` has started, or a new one.
 * @throws Error saying why it cannot be had
 */
export async function obtain(engine: Engine, say: (line: string) => void, { keep = false } = {}): Promise<Available> {
  const given = process.env[engine.variable];
  if (given) {
    const env = { [engine.variable]: given };
    await engine.probe(env).catch((error: unknown) => {
      throw new Error(`${engine.variable} is set and nothing answers there: ${(error as Error).message}`, { cause: error });
    });
    return { engine, env, from: "variable" };
  }
  const before = running(engine);
  if (before) return { engine, env: before.env, from: "up", server: before };
  const server = await engine.start(engine.find() ?? (await engine.install(say)), { keep });
  return { engine, env: server.env, from: "started", server };
}

/** Starts an engine that outlives this process. */
export async function up(engine: Engine, say: (line: string) => void): Promise<Available> {
  const available = await obtain(engine, say, { keep: true });
  if (available.from === "started") {
    mkdirSync(STATE, { recursive: true });
    writeFileSync(join(STATE, `${engine.name}.json`), JSON.stringify(available.server));
  }
  return available;
}

/** Stops what `up` has started, and nothing else. Answers whether there was something. */
export async function down(engine: Engine): Promise<boolean> {
  const server = running(engine);
  if (server) await discard(server);
  rmSync(join(STATE, `${engine.name}.json`), { force: true });
  return server !== undefined;
}

/** Stops a server and removes its folder. */
export async function discard(server: Server): Promise<void> {
  await stop(server);
  rmSync(server.folder, { recursive: true, force: true });
  if (server.needs) await discard(server.needs);
}

/** What `up` has started and still runs. */
export function running(engine: Engine): Server | undefined {
  const file = join(STATE, `${engine.name}.json`);
  if (!existsSync(file)) return undefined;
  const server = JSON.parse(readFileSync(file, "utf8")) as Server;
  // The number of a process that ended may be another's by now.
  return alive(server.pid) && serves(server.pid, server.folder) ? server : undefined;
}

/** Whether a process is the server of that folder. Where there is no /proc, its being alive has to do. */
function serves(pid: number, folder: string): boolean {
  if (!existsSync("/proc/self/cmdline")) return true;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(folder);
  } catch {
    return false;
  }
}
