import { createServer, connect, type Server, type Socket } from "node:net";
import { Transform } from "node:stream";
import { freePort } from "./engine.ts";

/** A small TCP proxy on loopback in front of a real server, which can be slow, break what is connected, be cut off and put back. */
export class TcpProxy {
  readonly #to: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  readonly port: number;
  #server: Server | undefined;
  #delayMs = 0;

  private constructor(to: { readonly host: string; readonly port: number }, port: number) {
    this.#to = to;
    this.port = port;
  }

  static async open(to: { readonly host: string; readonly port: number }): Promise<TcpProxy> {
    const proxy = new TcpProxy(to, await freePort());
    await proxy.restore();
    return proxy;
  }

  /** What arrives from now on is passed on so much later, in both directions. */
  slow(delayMs: number): void {
    this.#delayMs = delayMs;
  }

  /** Breaks what is connected; new connections are taken. */
  drop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Breaks what is connected and refuses new connections. */
  async cut(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = server && new Promise((resolve) => server.close(resolve));
    this.drop();
    await closed;
  }

  /** Takes connections again, on the same port. */
  async restore(): Promise<void> {
    if (this.#server) return;
    this.#server = createServer((client) => {
      const upstream = connect(this.#to);
      for (const socket of [client, upstream]) {
        this.#sockets.add(socket);
        socket.setNoDelay(true);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => {
          this.#sockets.delete(socket);
          client.destroy();
          upstream.destroy();
        });
      }
      client.pipe(this.#late()).pipe(upstream).pipe(this.#late()).pipe(client);
    });
    const server = this.#server;
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(this.port, "127.0.0.1", resolve));
  }

  /** Keeps the order: what is late holds up what follows it. */
  #late(): Transform {
    return new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        if (this.#delayMs === 0) done(null, chunk);
        else setTimeout(() => done(null, chunk), this.#delayMs);
      },
    });
  }
}
