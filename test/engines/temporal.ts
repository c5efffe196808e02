import { createRequire } from "node:module";
import type { EngineUnderTest } from "@task-backend/conformance";
import { temporal, type TemporalOptions } from "@task-backend/temporal";
import { Connection } from "@temporalio/client";
import { TcpProxy } from "../../engines/tcp-proxy.ts";

/** A short timeout, so that lost workers are noticed soon. */
const HEARTBEAT_TIMEOUT = "3s";

/** The namespace of the instance that is set apart. */
const APART = "task-backend-apart";
const ALREADY_EXISTS = 6;

/** Temporal at that address. All cases share its namespace, and each has its own queue. */
export function temporalUnderTest(name: string, address: string): EngineUnderTest {
  const options = (at = address): TemporalOptions => ({ address: at, heartbeatTimeout: HEARTBEAT_TIMEOUT });
  return {
    name,
    createAdapter: (given) => temporal({ ...options(), ...(given && { retention: given.retentionMs }) }),
    env: {
      TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/temporal"),
      TASK_BACKEND_URL: `temporal://${address}/default?heartbeatTimeout=${HEARTBEAT_TIMEOUT}`,
    },
    nowhere: { TASK_BACKEND_URL: "temporal://127.0.0.1:1/default" },
    apart: async () => {
      await registerNamespace(address, APART);
      return [{ by: "another namespace", createAdapter: () => temporal({ ...options(), namespace: APART }) }];
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

async function registerNamespace(address: string, namespace: string): Promise<void> {
  const connection = await Connection.connect({ address });
  try {
    await connection.workflowService
      .registerNamespace({ namespace, workflowExecutionRetentionPeriod: { seconds: 86_400 as never } })
      .catch((error: { code?: number }) => {
        if (error.code !== ALREADY_EXISTS) throw error;
      });
    // The other parts of the server learn of a new namespace after a moment.
    for (let tries = 0; tries < 60; tries++) {
      const known = await connection.workflowService.listWorkflowExecutions({ namespace, pageSize: 1 }).then(
        () => true,
        () => false,
      );
      if (known) return;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  } finally {
    await connection.close();
  }
}
