import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import type { EngineUnderTest } from "@task-backend/conformance";
import { bullmq, type BullmqOptions } from "@task-backend/bullmq";
import { createBackend, silentLogger } from "@task-backend/core";
import { TcpProxy } from "../../engines/tcp-proxy.ts";

/** Short locks, so that lost workers are noticed soon. PostgreSQL needs longer to renew them when all cases run at once. */
const LOCKS = { redis: "3s", postgres: "5s" } as const;
const STALLED_INTERVAL = "1s";

/** BullMQ on the server of that URL, in its own prefix or schema. */
export function bullmqUnderTest(name: string, url: string): EngineUnderTest {
  const postgres = url.startsWith("postgres");
  const lock = LOCKS[postgres ? "postgres" : "redis"];
  const own = `test_${randomBytes(4).toString("hex")}`;
  let instances = 0;
  const options = (space: string, at = url): BullmqOptions => ({
    url: at,
    ...(postgres ? { schema: space, poolSize: 4 } : { prefix: `{${space}}` }),
    lock,
    stalledInterval: STALLED_INTERVAL,
  });
  const withQuery = new URL(url);
  for (const [key, value] of Object.entries({
    lock,
    stalledInterval: STALLED_INTERVAL,
    ...(postgres ? { schema: own } : { prefix: `{${own}}` }),
  })) {
    withQuery.searchParams.set(key, value);
  }
  return {
    name,
    createAdapter: (given) =>
      given ? bullmq({ ...options(`${own}_retention${++instances}`), retention: given.retentionMs }) : bullmq(options(own)),
    env: { TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/bullmq"), TASK_BACKEND_URL: withQuery.href },
    nowhere: { TASK_BACKEND_URL: postgres ? "postgres://postgres@127.0.0.1:1/postgres" : "redis://127.0.0.1:1" },
    apart: async () => {
      const space = {
        by: postgres ? "another schema" : "another prefix",
        createAdapter: () => bullmq(options(`${own}_apart${++instances}`)),
      };
      if (postgres) return [space];
      const database = Object.assign(new URL(url), { pathname: "/1" }).href;
      return [space, { by: "another database number", createAdapter: () => bullmq(options(own, database)) }];
    },
    outage: async () => {
      const server = new URL(url);
      const proxy = await TcpProxy.open({ host: server.hostname, port: Number(server.port) });
      const through = new URL(url);
      through.host = `127.0.0.1:${proxy.port}`;
      const space = `${own}_outage${++instances}`;
      // The tables are created first, because calls have a short time limit later.
      await (await createBackend(bullmq(options(space)), { log: silentLogger })).close();
      return {
        createAdapter: () => bullmq(options(space, through.href)),
        begin: () => proxy.cut(),
        end: () => proxy.restore(),
      };
    },
  };
}
