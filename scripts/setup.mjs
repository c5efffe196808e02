// Installs when the lock file has changed, and builds packages whose sources have changed. Nothing else of this project may be
// imported before. Needs only Node.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The packages in the order of their imports; those of one line are built at the same time. */
const BUILD_ORDER = [
  ["packages/core"],
  ["packages/sqlite", "packages/bullmq", "packages/temporal", "packages/hatchet", "packages/worker", "packages/conformance"],
  ["examples/document-pipeline", "examples/custom-backend"],
];

export async function setup({ forceBuild = false, build: wanted = true } = {}) {
  const lock = hashFiles([join(root, "package-lock.json")]);
  if (stamp("install") !== lock || !existsSync(join(root, "node_modules"))) {
    console.log("Installing dependencies (npm ci)");
    run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
    stamp("install", lock);
  }
  for (const group of wanted ? BUILD_ORDER : []) {
    const stale = group
      .filter((folder) => existsSync(join(root, folder, "tsup.config.ts")))
      .filter((folder) => forceBuild || !existsSync(join(root, folder, "dist")) || stamp(folder) !== sourceHash(folder, lock));
    if (stale.length > 0) console.log(`Building ${stale.join(", ")}`);
    await Promise.all(stale.map((folder) => build(folder, lock)));
  }
}

async function build(folder, lock) {
  const { execFile } = await import("node:child_process");
  const tsup = join(root, "node_modules/tsup/dist/cli-default.js");
  await new Promise((resolve, reject) => {
    execFile(process.execPath, [tsup, "--silent"], { cwd: join(root, folder) }, (error, stdout, stderr) => {
      if (!error) return resolve();
      console.error(stdout, stderr);
      reject(new Error(`The build of ${folder} failed.`));
    });
  });
  stamp(folder, sourceHash(folder, lock));
}

function sourceHash(folder, lock) {
  const files = [
    join(root, folder, "package.json"),
    join(root, folder, "tsup.config.ts"),
    join(root, "tsup.base.ts"),
    join(root, "tsconfig.json"),
    ...walk(join(root, folder, "src")),
  ];
  // Declarations of core are part of the other packages, so a change of core rebuilds them as well.
  if (folder !== "packages/core") files.push(...walk(join(root, "packages/core/src")));
  return hashFiles(files, lock);
}

function walk(folder) {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) =>
      entry.isDirectory() ? walk(join(folder, entry.name)) : entry.name.endsWith(".test.ts") ? [] : [join(folder, entry.name)],
    );
}

function hashFiles(files, seed = "") {
  const hash = createHash("sha256").update(seed);
  for (const file of files) hash.update(file).update(readFileSync(file));
  return hash.digest("hex");
}

function stamp(name, value) {
  const file = join(root, "node_modules/.cache/task-backend", name.replaceAll("/", "-"));
  if (value === undefined) return existsSync(file) ? readFileSync(file, "utf8") : undefined;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, value);
  return value;
}

export function run(command, args, options = {}) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  if (status !== 0) process.exit(status ?? 1);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await setup({ forceBuild: process.argv.includes("--force-build") });
