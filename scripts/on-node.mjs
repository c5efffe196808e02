// npm run on-node -- 22 24     the quickstart and the SQLite suite, with the driver's own tests, on other versions of Node
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, setup } from "./setup.mjs";

const versions = process.argv.slice(2);
if (versions.length === 0 || !versions.every((version) => /^\d+(\.\d+){0,2}$/.test(version))) {
  console.error("Name the versions of Node, such as: npm run on-node -- 22 24");
  process.exit(2);
}

await setup();
for (const version of versions) {
  const folder = mkdtempSync(join(tmpdir(), `task-backend-node-${version}-`));
  try {
    // A Node of any version comes as a package.
    run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder, `node@${version}`], {});
    const env = { PATH: `${join(folder, "node_modules/node/bin")}:${process.env.PATH}` };
    console.log(`On Node ${version}:`);
    run("node", ["--version"], env);
    run("node", ["dist/main.js"], { ...env, TASK_BACKEND_TYPE: "sqlite" }, join(root, "examples/document-pipeline"));
    run("node", [join(root, "node_modules/vitest/vitest.mjs"), "run", "test/conformance/sqlite.test.ts", "packages/sqlite"], {
      ...env,
      NODE_ENV: "test",
      TASK_BACKEND_REPORTS: folder,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(command, args, env, cwd = root) {
  const { status, error } = spawnSync(command, args, { cwd, stdio: "inherit", env: { ...process.env, ...env } });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}
