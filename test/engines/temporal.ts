import { createRequire } from "node:module";
import type { EngineUnderTest } from "@task-backend/conformance";
import { temporal, type TemporalOptions } from "@task-backend/temporal";
import { TcpProxy } from "../../engines/tcp-proxy.ts";

/** Short, so that lost workers are noticed within a test's patience. */
const HEARTBEAT_TIMEOUT = "3s";

/** Temporal at that address. All share its namespace: each case has a queue of its own. */
export function temporalUnderTest(name: string, address: string): EngineUnderTest {
  const options = (at = address): TemporalOptions => ({ address: at, heartbeatTimeout: HEARTBEAT_TIMEOUT });
  return {
    name,
    createAdapter: (given) => temporal({ ...options(), ...(given && { retention: given.retentionMs }) }),
    env: {
      TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/temporal"),
      TASK_BACKEND_URL: `temporal://${address}/default?heartbeatTimeout=${HEARTBEAT_TIMEOUT}`,
    },
    outage: async () => {
      const [host = "", port = ""] = address.split(":");
      const proxy = await TcpProxy.open({ host, port: Number(port) });
      return {
        createAdapter: () => temporal(options(`127.0.0.1:${proxy.port}`)),
        begin: () => proxy.cut(),
        end: () => proxy.restore(),
      };
    },
  };
}
