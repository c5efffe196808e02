import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** `/live` answers while the event loop turns; `/ready` only while the worker is connected and claiming. */
export async function serveHealth(port: number, healthy: () => boolean): Promise<{ port: number; close(): void }> {
  const server: Server = createServer((request, response) => {
    const known = request.url === "/live" || request.url === "/ready";
    const status = !known ? 404 : request.url === "/live" || healthy() ? 200 : 503;
    response
      .writeHead(status, { "content-type": "text/plain" })
      .end(status === 200 ? "ok\n" : status === 503 ? "not ready\n" : "see /live and /ready\n");
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
