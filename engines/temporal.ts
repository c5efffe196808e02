import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Connection } from "@temporalio/client";
import { freePort, launch, newFolder, onFreePorts, untilAnswers, type Engine, type Server, type StartOptions } from "./engine.ts";
import { build, findBuilt, type GoServer } from "./go-build.ts";

const SERVER: GoServer = { module: "go.temporal.io/server", version: "v1.32.0", binaries: { "./cmd/server": "temporal-server" } };
/** The newest whose command can be built from its module; the server inside is 1.29. */
const CLI: GoServer = { module: "github.com/temporalio/cli", version: "v1.5.1", binaries: { "./cmd/temporal": "temporal" } };
const NAMESPACE = "default";
const DAY_S = 24 * 3600;

/** All services of Temporal in one process, over a file of SQLite that survives the process, not a power cut. */
export const temporal: Engine = {
  name: "temporal",
  variable: "TEMPORAL_ADDRESS",
  find: () => findBuilt(SERVER),
  install: (say) => build(SERVER, say),

  start: (binaries, options = {}) => (options.again ? start(binaries, options) : onFreePorts(() => start(binaries, options))),

  probe: (env) => connected(env, (connection) => describe(connection)),
};

async function start(binaries: string, { keep = false, again }: StartOptions): Promise<Server> {
  const folder = again?.folder ?? newFolder("temporal");
  let port = again?.port;
  if (port === undefined) {
    port = await freePort();
    const others = await Promise.all(Array.from({ length: 8 }, () => freePort()));
    writeFileSync(join(folder, "dynamic.yaml"), DYNAMIC);
    writeFileSync(join(folder, "server.yaml"), configuration(folder, port, others));
  }
  const args = ["--root", folder, "--config", ".", "--env", "server", "--allow-no-auth", "start"];
  return serving(launch(join(binaries, "temporal-server"), args, folder, { keep }), folder, port);
}

/** A server from before standalone activities, to try what stands in for them. */
export const temporal129: Engine = {
  name: "temporal-1.29",
  variable: temporal.variable,
  find: () => findBuilt(CLI),
  install: (say) => build(CLI, say),

  start: async (binaries, { keep = false, again } = {}) => {
    const folder = again?.folder ?? newFolder("temporal-1.29");
    const [port, http, metrics] = [again?.port ?? (await freePort()), await freePort(), await freePort()];
    const ports = ["--port", `${port}`, "--http-port", `${http}`, "--metrics-port", `${metrics}`];
    // As the newer one: it survives the process, not a power cut.
    const pragmas = ["journal_mode=wal", "synchronous=0"].flatMap((pragma) => ["--sqlite-pragma", pragma]);
    const limits = ["frontend.namespaceRPS=20000", "frontend.namespaceCount=20000"].flatMap((limit) => ["--dynamic-config-value", limit]);
    const args = [
      "server",
      "start-dev",
      "--headless",
      ...ports,
      "--db-filename",
      join(folder, "temporal.db"),
      "--log-level",
      "error",
      ...pragmas,
      ...limits,
    ];
    return serving(launch(join(binaries, "temporal"), args, folder, { keep }), folder, port);
  },

  probe: (env) => temporal.probe(env),
};

async function serving(pid: number, folder: string, port: number): Promise<Server> {
  const server: Server = { pid, folder, env: { [temporal.variable]: `127.0.0.1:${port}` } };
  await untilAnswers("temporal", server, () => register(server.env));
  return server;
}

async function connected(env: Readonly<Record<string, string>>, work: (connection: Connection) => Promise<void>): Promise<void> {
  const connection = await Connection.connect({ address: env["TEMPORAL_ADDRESS"] as string, connectTimeout: "2s" });
  try {
    await connection.withDeadline(Date.now() + 5_000, () => work(connection));
  } finally {
    await connection.close();
  }
}

async function describe(connection: Connection): Promise<void> {
  await connection.workflowService.describeNamespace({ namespace: NAMESPACE });
}

/** The server answers before it serves: a namespace counts once it can be used. */
function register(env: Readonly<Record<string, string>>): Promise<void> {
  return connected(env, async (connection) => {
    try {
      await describe(connection);
    } catch {
      await connection.workflowService.registerNamespace({
        namespace: NAMESPACE,
        workflowExecutionRetentionPeriod: { seconds: DAY_S as never },
      });
      await describe(connection);
    }
    await connection.workflowService.listWorkflowExecutions({ namespace: NAMESPACE, pageSize: 1 });
  });
}

/** Where histories are to be short, for tests of what happens at their end. */
export const SHORT_HISTORIES = "short-histories";
const DYNAMIC = `
limit.historyCount.suggestContinueAsNew: [{ value: 100, constraints: { namespace: ${SHORT_HISTORIES} } }, { value: 4096 }]
frontend.namespaceRPS: [{ value: 20000 }]
frontend.namespaceCount: [{ value: 20000 }]
`;

function configuration(folder: string, port: number, [http, membership, ...rest]: readonly number[]): string {
  const store = (name: string): string => `
    ${name}:
      sql:
        pluginName: "sqlite"
        databaseName: ${JSON.stringify(join(folder, "temporal.db"))}
        connectAddr: "localhost"
        connectProtocol: "tcp"
        connectAttributes: { cache: "private", setup: true, journal_mode: wal, synchronous: 0 }
        maxConns: 1
        maxIdleConns: 1
        maxConnLifetime: "1h"`;
  const service = (name: string, grpc: number | undefined, member: number | undefined, more = ""): string => `
  ${name}:
    rpc: { grpcPort: ${grpc}, membershipPort: ${member}, bindOnLocalHost: true${more} }`;
  return `
log: { stdout: true, level: error }
persistence:
  defaultStore: default
  visibilityStore: visibility
  numHistoryShards: 1
  datastores:${store("default")}${store("visibility")}
global:
  membership: { maxJoinDuration: 30s, broadcastAddress: "127.0.0.1" }
services:${service("frontend", port, membership, `, httpPort: ${http}`)}${service("matching", rest[0], rest[1])}${service("history", rest[2], rest[3])}${service("worker", rest[4], rest[5])}
clusterMetadata:
  enableGlobalNamespace: false
  failoverVersionIncrement: 10
  masterClusterName: "active"
  currentClusterName: "active"
  clusterInformation:
    active: { enabled: true, initialFailoverVersion: 1, rpcName: "frontend", rpcAddress: "localhost:${port}", httpAddress: "localhost:${http}" }
dcRedirectionPolicy: { policy: "noop" }
dynamicConfigClient: { filepath: ${JSON.stringify(join(folder, "dynamic.yaml"))}, pollInterval: "60s" }
`;
}
