import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { freePort, launch, newFolder, onFreePorts, stop, untilAnswers, type Engine, type Environment, type Server } from "./engine.ts";
import { build, findBuilt, type GoServer } from "./go-build.ts";
import { postgres } from "./postgres.ts";

const VERSION = "v0.104.6";
const SERVER: GoServer = {
  module: "github.com/hatchet-dev/hatchet",
  version: VERSION,
  binaries: {
    "./cmd/hatchet-lite": "hatchet-lite",
    "./cmd/hatchet-migrate": "hatchet-migrate",
    "./cmd/hatchet-admin": "hatchet-admin",
  },
  ldflags: `-X main.Version=${VERSION}`,
};
const run = promisify(execFile);

/** All services of Hatchet in one process, over a PostgreSQL server that is started for it alone. */
export const hatchet: Engine = {
  name: "hatchet",
  variable: "HATCHET_CLIENT_TOKEN",
  find: () => (postgres.find() === undefined ? undefined : findBuilt(SERVER)),

  install: async (say) => {
    if (postgres.find() === undefined) await postgres.install(say);
    return findBuilt(SERVER) ?? build(SERVER, say);
  },

  start: async (binaries, { keep = false, again } = {}) => {
    const folder = again?.folder ?? newFolder("hatchet");
    if (again) return serve(binaries, folder, keep);
    const database = await postgres.start(postgres.find() as string, { keep });
    try {
      return await onFreePorts(async () => {
        await prepare(binaries, folder, database);
        return serve(binaries, folder, keep);
      });
    } catch (error) {
      await stop(database);
      throw error;
    }
  },

  probe: async (env) => {
    const response = await fetch(`${env["HATCHET_CLIENT_API_URL"] ?? apiOf(env["HATCHET_CLIENT_TOKEN"] as string)}/api/ready`, {
      signal: AbortSignal.timeout(5_000),
    });
    if (!response.ok) throw new Error(`it answers ${response.status}`);
  },
};

/** What a server of that folder is started with, also a second time. */
interface Prepared {
  readonly settings: Environment;
  readonly client: Environment;
  readonly database: Server;
}

/** Its database, configuration and first token. */
async function prepare(binaries: string, folder: string, database: Server): Promise<void> {
  const [api, grpc, frontend, runtime] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const config = join(folder, "config");
  const site = join(folder, "site");
  for (const made of [config, site]) mkdirSync(made, { recursive: true });
  writeFileSync(join(site, "index.html"), "<!doctype html><title>Hatchet</title>");
  const url = new URL(database.env[postgres.variable] as string);
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  await client.query("DROP DATABASE IF EXISTS hatchet");
  await client.query("CREATE DATABASE hatchet");
  await client.end();
  url.pathname = "/hatchet";
  const settings: Environment = {
    DATABASE_URL: `${url.href}?sslmode=disable`,
    SERVER_PORT: `${api}`,
    SERVER_URL: `http://127.0.0.1:${api}`,
    SERVER_AUTH_COOKIE_DOMAIN: "127.0.0.1",
    SERVER_AUTH_COOKIE_INSECURE: "t",
    SERVER_GRPC_PORT: `${grpc}`,
    SERVER_GRPC_BIND_ADDRESS: "127.0.0.1",
    SERVER_GRPC_BROADCAST_ADDRESS: `127.0.0.1:${grpc}`,
    SERVER_GRPC_INSECURE: "t",
    SERVER_MSGQUEUE_KIND: "postgres",
    // Of the life of a run: by default it may lose ten workers.
    SERVER_MAX_INTERNAL_RETRY_COUNT: "1000",
    // Keyed runs are started at once or refused, and of all clients together five at a time by default.
    SERVER_GRPC_TRIGGER_WRITE_SLOTS: "50",
    SERVER_SECURITY_CHECK_ENABLED: "false",
    SERVER_LOGGER_LEVEL: "error",
    SERVER_HEALTHCHECK: "false",
    LITE_STATIC_ASSET_DIR: site,
    LITE_FRONTEND_PORT: `${frontend}`,
    LITE_RUNTIME_PORT: `${runtime}`,
  };
  const env = environmentOf(settings);
  const options = { env, cwd: folder };
  await run(join(binaries, "hatchet-migrate"), [], options);
  await run(
    join(binaries, "hatchet-admin"),
    ["quickstart", "--skip", "certs", "--generated-config-dir", config, "--overwrite=false"],
    options,
  );
  const token = await run(join(binaries, "hatchet-admin"), ["token", "create", "--config", config, "--name", "dev"], options);
  const prepared: Prepared = {
    settings,
    client: {
      HATCHET_CLIENT_TOKEN: token.stdout.trim(),
      HATCHET_CLIENT_HOST_PORT: `127.0.0.1:${grpc}`,
      HATCHET_CLIENT_API_URL: `http://127.0.0.1:${api}`,
      HATCHET_CLIENT_TLS_STRATEGY: "none",
    },
    database,
  };
  writeFileSync(join(folder, "prepared.json"), JSON.stringify(prepared));
}

async function serve(binaries: string, folder: string, keep: boolean): Promise<Server> {
  const { settings, client, database } = JSON.parse(readFileSync(join(folder, "prepared.json"), "utf8")) as Prepared;
  const env = environmentOf(settings);
  const pid = launch(join(binaries, "hatchet-lite"), ["--config", join(folder, "config")], folder, { keep, env, cwd: folder });
  const server: Server = { pid, folder, env: client, needs: database };
  await untilAnswers("hatchet", server, async () => {
    await hatchet.probe(client);
    // It says that it is ready before it listens for the calls of clients.
    await listens(Number(settings["SERVER_GRPC_PORT"]));
  });
  return server;
}

async function listens(port: number): Promise<void> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
  } finally {
    socket.destroy();
  }
}

/** Nothing of what leads clients to another server. */
function environmentOf(settings: Environment): NodeJS.ProcessEnv {
  const others = Object.entries(process.env).filter(([name]) => !/^(HATCHET|SERVER|DATABASE|LITE)_/.test(name));
  return { ...Object.fromEntries(others), ...settings };
}

/** A token says where its server is. */
function apiOf(token: string): string {
  const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { server_url?: string };
  return claims.server_url ?? "";
}
