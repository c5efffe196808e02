import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EngineUnderTest } from "@task-backend/conformance";
import { sqlite } from "@task-backend/sqlite";
// The backend's own driver: another copy of SQLite in this process would not see its locks.
import { openConnection, type Connection } from "../../packages/sqlite/src/driver.ts";

/** A short lease, so that lost workers are noticed soon. */
const LEASE = "3s";

export function sqliteUnderTest(name: string): EngineUnderTest {
  const folder = mkdtempSync(join(tmpdir(), "task-backend-sqlite-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "tasks.db");
  let instances = 0;
  return {
    name,
    createAdapter: (options) =>
      options
        ? sqlite({ file: join(folder, `retention-${options.retentionMs}-${++instances}.db`), retention: options.retentionMs, lease: LEASE })
        : sqlite({ file, lease: LEASE }),
    env: {
      TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/sqlite"),
      TASK_BACKEND_URL: `sqlite:${file}?lease=${LEASE}`,
    },
    // There can be no file below a device.
    nowhere: { TASK_BACKEND_URL: "sqlite:/dev/null/tasks.db" },
    apart: async () => [
      { by: "another file", createAdapter: () => sqlite({ file: join(folder, `apart-${++instances}.db`), lease: LEASE }) },
    ],
    outage: async () => {
      const own = join(folder, `outage-${++instances}.db`);
      let lock: Connection | undefined;
      return {
        createAdapter: () => sqlite({ file: own, lease: LEASE }),
        begin: async () => {
          lock = openConnection(own, 0);
          lock.exec("BEGIN EXCLUSIVE");
        },
        end: async () => {
          lock?.close();
          lock = undefined;
        },
      };
    },
  };
}
