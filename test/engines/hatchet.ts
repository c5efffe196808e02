import { createRequire } from "node:module";
import type { EngineUnderTest } from "@task-backend/conformance";
import { hatchet, type HatchetOptions } from "@task-backend/hatchet";
import { TcpProxy } from "../../engines/tcp-proxy.ts";

/** The namespace of the instance that is set apart. */
const APART = "task_backend_apart_";

/** Hatchet, by its own variables. All cases share its tenant, and each has its own queue. */
export function hatchetUnderTest(name: string): EngineUnderTest {
  const { HATCHET_CLIENT_HOST_PORT: hostPort = "", HATCHET_CLIENT_API_URL: apiUrl = "" } = process.env;
  return {
    name,
    createAdapter: (given) => hatchet({ ...(given && { retention: given.retentionMs }) }),
    env: { TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/hatchet"), TASK_BACKEND_URL: `hatchet://${hostPort}` },
    nowhere: { TASK_BACKEND_URL: "hatchet://127.0.0.1:1", HATCHET_CLIENT_API_URL: "http://127.0.0.1:1" },
    apart: async () => [{ by: "another namespace", createAdapter: () => hatchet({ namespace: APART }) }],
    outage: async () => {
      const open = (address: string): Promise<TcpProxy> => {
        const [host = "", port = ""] = address.split(":");
        return TcpProxy.open({ host, port: Number(port) });
      };
      const [grpc, api] = await Promise.all([open(hostPort), open(new URL(apiUrl).host)]);
      const options: HatchetOptions = { hostPort: `127.0.0.1:${grpc.port}`, apiUrl: `http://127.0.0.1:${api.port}` };
      return {
        createAdapter: () => hatchet(options),
        begin: async () => void (await Promise.all([grpc.cut(), api.cut()])),
        end: async () => void (await Promise.all([grpc.restore(), api.restore()])),
      };
    },
  };
}
