import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { CommandError } from "./arguments.ts";

export interface Health {
  readonly port: number;
  close(): void;
}

/**
 * `/live` answers while the event loop runs; `/ready` only while the worker is connected and claiming.
 * @throws CommandError when it cannot listen on the port
 */
export async function serveHealth(port: number, ready: () => boolean): Promise<Health> {
  const server: Server = createServer((request, response) => {
    const [path] = (request.url ?? "").split("?");
    const known = path === "/live" || path === "/ready";
    const status = !known ? 404 : path === "/live" || ready() ? 200 : 503;
    response
      .writeHead(status, { "content-type": "text/plain" })
      .end(status === 200 ? "ok\n" : status === 503 ? "not ready\n" : "see /live and /ready\n");
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, resolve);
  }).catch((error: NodeJS.ErrnoException) => {
    throw new CommandError(refusal(port, error), 1);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function refusal(port: number, error: NodeJS.ErrnoException): string {
  if (error.code === "EADDRINUSE")
    return `--health-port ${port} is in use by another program; give another port, or 0 for any that is free`;
  if (error.code === "EACCES") return `--health-port ${port} is not allowed for this user; give a port from 1024`;
  return `--health-port ${port} cannot be had: ${error.message}`;
}
