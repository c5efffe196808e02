import { execFileSync } from "node:child_process";
import { chownSync, existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { findProgram, freePort, launch, newFolder, untilAnswers, type Engine, type Server } from "./engine.ts";
import { installPackages } from "./packages.ts";

/** Where Debian puts the binaries of each version. */
const DEBIAN = "/usr/lib/postgresql";

export const postgres: Engine = {
  name: "postgres",
  variable: "POSTGRES_URL",

  find: () => {
    const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a)) : [];
    const folders = versions.map((version) => join(DEBIAN, version, "bin"));
    // A wrapper in PATH does not do: initdb and postgres lie side by side.
    return folders.find((folder) => existsSync(join(folder, "initdb"))) ?? findProgram("initdb");
  },

  install: async (say) => {
    await installPackages(["postgresql"], say);
    const folder = postgres.find();
    if (folder === undefined) throw new Error("postgresql was installed and cannot be found");
    return folder;
  },

  start: async (binaries, { keep = false, again } = {}) => {
    const folder = again?.folder ?? newFolder("postgres");
    const port = again?.port ?? (await freePort());
    const data = join(folder, "data");
    const user = serverUser();
    if (!again) {
      if (user) chownSync(folder, user.uid, user.gid);
      const args = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync", "-D", data];
      execFileSync(join(binaries, "initdb"), args, { ...user, stdio: "ignore", cwd: folder });
    }
    const settings = ["listen_addresses=127.0.0.1", "max_connections=300", "shared_buffers=256MB"].flatMap((setting) => ["-c", setting]);
    const pid = launch(join(binaries, "postgres"), ["-D", data, "-p", `${port}`, "-k", folder, ...settings], folder, {
      ...user,
      keep,
      cwd: folder,
    });
    const server: Server = { pid, folder, env: { POSTGRES_URL: `postgres://postgres@127.0.0.1:${port}/postgres` } };
    await untilAnswers("postgres", server, () => postgres.probe(server.env));
    return server;
  },

  probe: async (env) => {
    const client = new pg.Client({ connectionString: env["POSTGRES_URL"], connectionTimeoutMillis: 5_000 });
    client.on("error", () => {});
    await client.connect();
    try {
      await client.query("SELECT 1");
    } finally {
      await client.end();
    }
  },
};

/** PostgreSQL refuses to run as root: the user that its package made, or nobody. */
function serverUser(): { readonly uid: number; readonly gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ["postgres", "nobody"]) {
    try {
      const id = (flag: string): number => Number(execFileSync("id", [flag, name], { stdio: ["ignore", "pipe", "ignore"] }));
      return { uid: id("-u"), gid: id("-g") };
    } catch {
      continue;
    }
  }
  return undefined;
}
