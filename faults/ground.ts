import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { stop, type Engine, type Environment, type Server } from "../engines/engine.ts";
import { hatchet } from "../engines/hatchet.ts";
import { discard } from "../engines/index.ts";
import { postgres } from "../engines/postgres.ts";
import { redis } from "../engines/redis.ts";
import { TcpProxy } from "../engines/tcp-proxy.ts";
import { temporal } from "../engines/temporal.ts";
import { openConnection, type Connection } from "../packages/sqlite/src/driver.ts";

/** A way to the engine that can be slow, broken and cut: one for each process. */
export interface Road {
  readonly env: Environment;
  readonly proxies: readonly TcpProxy[];
}

/** An engine that the fault suite has for itself. */
export interface Ground {
  road(): Promise<Road>;
  /** Takes the engine away for a moment, as a crash does. */
  readonly interrupt: () => Promise<void>;
  close(): Promise<void>;
}

const typeOf = (name: string): Environment => ({ TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve(name) });

/** A short lease or lock, where it can be set: a lost worker is noticed soon, so that more happens in the time. */
const LEASE = "3s";
const LOCKS: Environment = { lock: LEASE, stalledInterval: "1s" };
const schema = (): string => `faults_${randomBytes(3).toString("hex")}`;

export const grounds: Readonly<Record<string, () => Promise<Ground>>> = {
  sqlite: async () => {
    const folder = mkdtempSync(join(tmpdir(), "task-backend-faults-"));
    const file = join(folder, "tasks.db");
    return {
      road: async () => ({ env: { ...typeOf("@task-backend/sqlite"), TASK_BACKEND_URL: `sqlite:${file}?lease=${LEASE}` }, proxies: [] }),
      // Nothing can restart: another process holds the file.
      interrupt: async () => {
        const lock = openConnection(file, 0);
        while (!held(lock)) await pause(10);
        await pause(1_500);
        lock.exec("COMMIT");
        lock.close();
      },
      close: async () => rmSync(folder, { recursive: true, force: true }),
    };
  },

  "bullmq-redis": () => byUrl("@task-backend/bullmq", redis, "SIGKILL", { ...LOCKS, prefix: "{faults}" }),
  "bullmq-postgres": () => byUrl("@task-backend/bullmq", postgres, "SIGQUIT", { ...LOCKS, schema: schema() }),
  "custom-backend": () => byUrl("custom-backend", postgres, "SIGQUIT", { lease: LEASE, schema: schema() }),

  temporal: async () => {
    const server = await start(temporal);
    const address = server.current().env["TEMPORAL_ADDRESS"] as string;
    return {
      road: async () => {
        const proxy = await proxyTo(address);
        return {
          env: { ...typeOf("@task-backend/temporal"), TASK_BACKEND_URL: `temporal://127.0.0.1:${proxy.port}/default` },
          proxies: [proxy],
        };
      },
      interrupt: () => server.restart("SIGKILL"),
      close: () => server.close(),
    };
  },

  hatchet: async () => {
    const server = await start(hatchet);
    const { HATCHET_CLIENT_HOST_PORT: grpc = "", HATCHET_CLIENT_API_URL: api = "", ...client } = server.current().env;
    return {
      road: async () => {
        const proxies = await Promise.all([proxyTo(grpc), proxyTo(new URL(api).host)]);
        const ports = {
          HATCHET_CLIENT_HOST_PORT: `127.0.0.1:${proxies[0].port}`,
          HATCHET_CLIENT_API_URL: `http://127.0.0.1:${proxies[1].port}`,
        };
        return { env: { ...typeOf("@task-backend/hatchet"), ...client, ...ports }, proxies };
      },
      interrupt: () => server.restart("SIGKILL"),
      close: () => server.close(),
    };
  },
};

function held(lock: Connection): boolean {
  try {
    lock.exec("BEGIN EXCLUSIVE");
    return true;
  } catch {
    return false;
  }
}

/** A backend that is led to a server of its own by a URL. */
async function byUrl(name: string, engine: Engine, signal: NodeJS.Signals, query: Environment): Promise<Ground> {
  const server = await start(engine);
  const url = new URL(server.current().env[engine.variable] as string);
  return {
    road: async () => {
      const proxy = await proxyTo(url.host);
      const through = new URL(url);
      through.host = `127.0.0.1:${proxy.port}`;
      for (const [key, value] of Object.entries(query)) through.searchParams.set(key, value);
      return { env: { ...typeOf(name), TASK_BACKEND_URL: through.href }, proxies: [proxy] };
    },
    interrupt: () => server.restart(signal),
    close: () => server.close(),
  };
}

interface OwnServer {
  current(): Server;
  restart(signal: NodeJS.Signals): Promise<void>;
  close(): Promise<void>;
}

/** @throws Error when the engine cannot be had */
async function start(engine: Engine): Promise<OwnServer> {
  const binaries = engine.find() ?? (await engine.install(console.error));
  const first = await engine.start(binaries);
  let server = first;
  return {
    current: () => server,
    restart: async (signal) => {
      await stop(server, signal);
      server = await engine.start(binaries, { again: { folder: first.folder, port: portOf(server.env) } });
    },
    close: () => discard({ ...server, ...(first.needs && { needs: first.needs }) }),
  };
}

/** Hatchet remembers its own. */
function portOf(env: Environment): number {
  const url = env["REDIS_URL"] ?? env["POSTGRES_URL"] ?? `temporal://${env["TEMPORAL_ADDRESS"] ?? "127.0.0.1:0"}`;
  return Number(new URL(url).port);
}

function proxyTo(address: string): Promise<TcpProxy> {
  const [host = "", port = ""] = address.split(":");
  return TcpProxy.open({ host, port: Number(port) });
}
