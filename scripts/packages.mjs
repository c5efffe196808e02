// Makes docs/packages.md: the size and the licences of each package's installation. Needs the registry.
//   npm run packages
import { execFileSync } from "node:child_process";
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { format, resolveConfig } from "prettier";
import { root, setup } from "./setup.mjs";

const PAGE = join(root, "docs/packages.md");
const PACKAGES = ["core", "worker", "sqlite", "bullmq", "temporal", "hatchet", "conformance"];
/** The packages that a user must install with each of ours. */
const BESIDE = {
  worker: ["core"],
  sqlite: ["core"],
  bullmq: ["core"],
  temporal: ["core"],
  hatchet: ["core"],
  conformance: ["core", "worker"],
};
/** Packages whose licence is only in a file, and not in their package.json. */
const BY_FILE = { unionfs: "Unlicense" };

await setup();
const folder = mkdtempSync(join(tmpdir(), "task-backend-packages-"));
const npm = (args, cwd) => execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });

try {
  const workspaces = PACKAGES.flatMap((name) => ["--workspace", `packages/${name}`]);
  const packed = Object.values(JSON.parse(npm(["pack", "--pack-destination", folder, "--json", ...workspaces], root)));
  const rows = [];
  const all = new Map();
  for (const name of PACKAGES) {
    const { filename, size } = packed.find((one) => one.name === `@task-backend/${name}`);
    const project = join(folder, name);
    mkdirSync(project);
    writeFileSync(join(project, "package.json"), JSON.stringify({ name: "empty", private: true }));
    const files = [...(BESIDE[name] ?? []).map((one) => packed.find((other) => other.name === `@task-backend/${one}`).filename), filename];
    npm(["install", "--no-audit", "--no-fund", "--loglevel=error", ...files.map((file) => join(folder, file))], project);
    const modules = manifests(join(project, "node_modules"));
    for (const manifest of modules)
      if (!manifest.name?.startsWith("@task-backend/")) all.set(`${manifest.name} ${manifest.version}`, licenceOf(manifest));
    rows.push(
      `| \`@task-backend/${name}\` | ${Math.round(size / 1024)} KiB | ${(sizeOf(join(project, "node_modules")) / 1024 ** 2).toFixed(1)} MiB | ${modules.length} | ${audit(project)} |`,
    );
  }
  const byLicence = Map.groupBy
    ? Map.groupBy([...all], ([, licence]) => licence)
    : [...all].reduce((groups, one) => groups.set(one[1], [...(groups.get(one[1]) ?? []), one]), new Map());
  const page = [
    "<!-- Written by npm run packages. Do not edit. -->",
    "",
    "# Packages",
    "",
    "What installing a package brings into an empty project, with what it must have beside it. An adapter brings its own engine's",
    "client and no other; core brings none. `npm test` installs each of them outside this repository and checks that.",
    "",
    "| package | packed | installed, all together | packages | npm audit |",
    "| --- | --- | --- | --- | --- |",
    ...rows,
    "",
    "## Licences of all dependencies",
    "",
    "| licence | packages |",
    "| --- | --- |",
    ...[...byLicence]
      .sort(([a], [b]) => a.localeCompare(b))
      .map(
        ([licence, ones]) =>
          `| ${licence} | ${ones
            .map(([one]) => one)
            .sort()
            .join(", ")} |`,
      ),
    "",
  ];
  writeFileSync(PAGE, await format(page.join("\n"), { ...(await resolveConfig(PAGE)), filepath: PAGE }));
  console.log("docs/packages.md is written.");
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** The manifests of all packages under a node_modules. */
function manifests(modules) {
  if (!existsSync(modules)) return [];
  return readdirSync(modules)
    .filter((entry) => !entry.startsWith("."))
    .flatMap((entry) => {
      if (entry.startsWith("@")) return manifests(join(modules, entry));
      const file = join(modules, entry, "package.json");
      return [...(existsSync(file) ? [JSON.parse(readFileSync(file, "utf8"))] : []), ...manifests(join(modules, entry, "node_modules"))];
    });
}

function licenceOf({ name, license, licenses }) {
  return typeof license === "string"
    ? license
    : (license?.type ?? licenses?.map(({ type }) => type).join(" OR ") ?? BY_FILE[name] ?? "unknown");
}

function sizeOf(path) {
  const stat = lstatSync(path);
  if (!stat.isDirectory()) return stat.size;
  return readdirSync(path).reduce((sum, entry) => sum + sizeOf(join(path, entry)), 0);
}

/** The result of npm audit in a project, as text. Not every registry answers. */
function audit(project) {
  try {
    const { metadata } = JSON.parse(
      execFileSync("npm", ["audit", "--json"], { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }),
    );
    return metadata.vulnerabilities.total === 0 ? "clean" : `${metadata.vulnerabilities.total} found`;
  } catch (error) {
    try {
      const { metadata } = JSON.parse(error.stdout);
      return metadata ? `${metadata.vulnerabilities.total} found` : "no answer";
    } catch {
      return "no answer";
    }
  }
}
