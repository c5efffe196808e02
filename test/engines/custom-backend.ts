import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import type { EngineUnderTest } from "@task-backend/conformance";
import { createBackend, silentLogger } from "@task-backend/core";
import { postgresQueue, type PostgresQueueOptions } from "custom-backend";
import { TcpProxy } from "../../engines/tcp-proxy.ts";

/** A short lease, so that lost workers are noticed soon, but long enough for a busy machine. */
const LEASE = "5s";

/** The example on the PostgreSQL server of that URL, in its own schemas. */
export function customBackendUnderTest(name: string, url: string): EngineUnderTest {
  const own = `custom_${randomBytes(4).toString("hex")}`;
  let instances = 0;
  const options = (schema: string, at = url): PostgresQueueOptions => ({ url: at, schema, lease: LEASE, poolSize: 2 });
  const withQuery = new URL(url);
  for (const [key, value] of Object.entries({ schema: own, lease: LEASE, poolSize: "2" })) withQuery.searchParams.set(key, value);
  return {
    name,
    createAdapter: (given) =>
      postgresQueue(given ? { ...options(`${own}_retention${++instances}`), retention: given.retentionMs } : options(own)),
    env: { TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("custom-backend"), TASK_BACKEND_URL: withQuery.href },
    nowhere: { TASK_BACKEND_URL: "postgres://postgres@127.0.0.1:1/postgres" },
    apart: async () => [{ by: "another schema", createAdapter: () => postgresQueue(options(`${own}_apart${++instances}`)) }],
    outage: async () => {
      const server = new URL(url);
      const proxy = await TcpProxy.open({ host: server.hostname, port: Number(server.port) });
      const through = new URL(url);
      through.host = `127.0.0.1:${proxy.port}`;
      const schema = `${own}_outage${++instances}`;
      // The tables are created first, because calls have a short time limit later.
      await (await createBackend(postgresQueue(options(schema)), { log: silentLogger })).close();
      return {
        createAdapter: () => postgresQueue(options(schema, through.href)),
        begin: () => proxy.cut(),
        end: () => proxy.restore(),
      };
    },
  };
}
