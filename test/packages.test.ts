import { execFile, spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

/*
 * Tests the packages as users get them: packed, installed into empty projects outside this repository, and used from there.
 */

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const run = promisify(execFile);
const ADAPTERS = ["sqlite", "bullmq", "temporal", "hatchet"];
const PACKAGES = ["core", "worker", "conformance", ...ADAPTERS];
/** The packages that each adapter installs, and no other of our packages does. */
const ENGINES: Readonly<Record<string, readonly string[]>> = {
  sqlite: ["@photostructure/sqlite"],
  bullmq: ["bullmq", "ioredis"],
  temporal: ["@temporalio/client", "@temporalio/worker"],
  hatchet: ["@hatchet-dev/typescript-sdk"],
};
/** The TypeScript versions to test, from the oldest supported one to the newest. */
const TYPESCRIPTS = ["5.4", "5.9", "latest"];
const INSTALL_MS = 240_000;

const outside = mkdtempSync(join(tmpdir(), "task-backend-packages-"));
const packed = new Map<string, string>();

beforeAll(async () => {
  const args = ["pack", "--pack-destination", outside, "--json", ...PACKAGES.flatMap((name) => ["--workspace", `packages/${name}`])];
  const { stdout } = await run("npm", args, { cwd: root });
  const answer = JSON.parse(stdout) as { name: string; filename: string }[] | Record<string, { name: string; filename: string }>;
  for (const { name, filename } of Object.values(answer)) packed.set(name.replace("@task-backend/", ""), join(outside, filename));
}, INSTALL_MS);

afterAll(() => rmSync(outside, { recursive: true, force: true }), INSTALL_MS);

/** Makes an empty project with these of our packages, and others. */
async function project(name: string, ours: readonly string[], others: readonly string[] = []): Promise<string> {
  const folder = join(outside, name);
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
  const specs = [...ours.map((one) => packed.get(one) as string), ...others];
  await run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", ...specs], { cwd: folder });
  return folder;
}

const installed = (folder: string, name: string): boolean => existsSync(join(folder, "node_modules", name, "package.json"));

async function inProject(folder: string, file: string, code: string): Promise<string> {
  writeFileSync(join(folder, file), code);
  const { stdout } = await run(process.execPath, [file], { cwd: folder, env: { ...process.env, NODE_ENV: "test" } });
  return stdout.trim();
}

/** The output of a TypeScript that is installed there under an alias. */
async function compile(folder: string, version: string): Promise<string> {
  const tsc = join(folder, "node_modules", `ts-${version.replaceAll(".", "-")}`, "bin/tsc");
  return run(process.execPath, [tsc, "-p", "."], { cwd: folder, maxBuffer: 1 << 26 }).then(
    () => "",
    ({ stdout }: { stdout: string }) => stdout,
  );
}

/** The licence of every package under a node_modules. */
function licences(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (modules: string): void => {
    if (!existsSync(modules)) return;
    for (const entry of readdirSync(modules)) {
      if (entry.startsWith(".")) continue;
      if (entry.startsWith("@")) visit(join(modules, entry));
      else {
        const manifest = join(modules, entry, "package.json");
        if (existsSync(manifest)) {
          const {
            name = entry,
            license,
            licenses,
          } = JSON.parse(readFileSync(manifest, "utf8")) as {
            name?: string;
            license?: string | { type: string };
            licenses?: readonly { type: string }[];
          };
          if (!UNLICENSED_BY_FIELD.has(name))
            found.set(
              name,
              typeof license === "string" ? license : (license?.type ?? licenses?.map(({ type }) => type).join(" OR ") ?? ""),
            );
        }
        visit(join(modules, entry, "node_modules"));
      }
    }
  };
  visit(join(folder, "node_modules"));
  return found;
}

/** Packages whose licence is only in a file, and not in their package.json. */
const UNLICENSED_BY_FIELD = new Set(["unionfs"]);
const FREE =
  /^\(?(MIT|MIT-0|ISC|Apache-2\.0|Apache License 2\.0|BSD-2-Clause|BSD-3-Clause|0BSD|CC0-1\.0|BlueOak-1\.0\.0|Unlicense|CC-BY-4\.0|Python-2\.0)\b/;

/** The source of an application on SQLite. */
const TYPED_SQLITE = `
import { chain, createBackend, defineTask, defineWorkflow, getBackend, type Run, type TaskBackend } from "@task-backend/core";
import type { Adapter } from "@task-backend/core/adapter";
import { crashTest } from "@task-backend/core/testing";
import { sqlite } from "@task-backend/sqlite";
import { cases } from "@task-backend/conformance";
import * as worker from "@task-backend/worker";

const double = defineTask({ name: "double", retry: { attempts: 3 }, handler: async (n: number) => 2 * n });
const text = defineTask({ name: "text", handler: async (n: number, context) => String(n + context.attempt) });
const both = chain("both", [double, text]);
const flow = defineWorkflow({
  name: "flow",
  handler: async (wf, n: number) => {
    const first: number = await wf.run(double, n);
    await wf.sleep("1s");
    return first + (await wf.run(double, first));
  },
});
const adapters: Adapter[] = [sqlite({ file: "x.db" })];
export async function main(): Promise<void> {
  const backend: TaskBackend = await createBackend(adapters[0]!);
  const run: Run<number> = await backend.submit(double, 1);
  const output: string = await (await backend.submit(both, 1)).output({ timeout: "1s" });
  const result = await run.result();
  if (result.status === "completed") console.log(result.output.toFixed(), output);
  else if (result.status === "failed") console.log(result.error.code);
  // @ts-expect-error the input is a number
  await backend.submit(double, "one");
  await (await getBackend()).close();
  console.log(cases.length, typeof crashTest, typeof worker, flow.name);
}
`;

/** The source of an application on every engine. */
const TYPED = `
import { bullmq } from "@task-backend/bullmq";
import { temporal } from "@task-backend/temporal";
import { hatchet } from "@task-backend/hatchet";
${TYPED_SQLITE}
adapters.push(bullmq({}), temporal({}), hatchet({ token: "" }));
`;

/** Pages that a reader may follow word for word: each with the heading of the tested part and the expected output. */
const FIRST_MINUTES = [
  [
    "README.md",
    "## In twenty lines",
    () => `lines: ${firstMinutes("README.md", "## In twenty lines").files["tasks.ts"]?.split("\n").length}`,
  ],
  ["docs/getting-started.md", "# Getting started", () => "Hello, Ada!"],
] as const;

interface FirstMinutes {
  readonly files: Readonly<Record<string, string>>;
  readonly commands: readonly string[];
}

/** The files and the commands of one part of a page. */
function firstMinutes(page: string, heading: string): FirstMinutes {
  const text = readFileSync(join(root, page), "utf8");
  const [part = ""] = text.slice(text.indexOf(`${heading}\n`) + heading.length).split(/^## /m);
  const blocks = [...part.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language = "", code = ""]) => ({ language, code }));
  const files = blocks.filter(({ language }) => language === "ts").map(({ code }) => [/^\/\/ (\S+)\n/.exec(code)?.[1] ?? "", code]);
  const commands = blocks.filter(({ language }) => language === "sh").flatMap(({ code }) => code.trim().split("\n"));
  return { files: Object.fromEntries(files) as Record<string, string>, commands };
}

/** The folder of a Node of this version, which is installed as a package; undefined for the Node that runs this test. */
async function nodeOf(version: string): Promise<string | undefined> {
  if (process.versions.node.startsWith(`${version}.`)) return undefined;
  const folder = join(outside, `node-${version}`);
  if (!existsSync(folder)) {
    mkdirSync(folder);
    await run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder, `node@${version}`]);
  }
  return join(folder, "node_modules/node/bin");
}

describe("the first minutes", () => {
  test.for(["20", "22", "24"].flatMap((version) => FIRST_MINUTES.map((page) => [version, ...page] as const)))(
    "on Node %s, %s runs as it stands in an empty folder",
    { timeout: INSTALL_MS },
    async ([version, page, heading, expected]) => {
      const { files, commands } = firstMinutes(page, heading);
      const folder = mkdtempSync(join(outside, "empty-"));
      const bin = await nodeOf(version);
      const own = Object.entries(process.env).filter(([name]) => !/^(TASK_|NODE_ENV|NODE_OPTIONS|VITEST|npm_)/.test(name));
      const env = { ...Object.fromEntries(own), PATH: `${bin === undefined ? "" : `${bin}:`}${process.env["PATH"]}` };
      const shell = { cwd: folder, env };
      expect((await run("node", ["--version"], shell)).stdout).toMatch(new RegExp(`^v${version}\\.`));
      for (const [name, code] of Object.entries(files)) writeFileSync(join(folder, name), code);

      let worker: ChildProcess | undefined;
      let output = "";
      try {
        for (const command of commands) {
          // The only change is the source of our packages, which are not in a registry yet.
          const local = command.replaceAll(/@task-backend\/(\w+)/g, (_, name: string) => packed.get(name) as string);
          if (local.startsWith("npx task-backend-worker"))
            worker = spawn("sh", ["-c", local], { ...shell, stdio: "ignore", detached: true });
          else output = (await run("sh", ["-c", local], shell)).stdout;
        }
        expect(output.trim().split("\n").at(-1)).toBe(expected());
        // Node itself strips types from 22.18 on.
        if (version !== "20") expect((await run("node", ["app.ts"], shell)).stdout.trim().split("\n").at(-1)).toBe(expected());
      } finally {
        if (worker?.pid !== undefined) process.kill(-worker.pid, "SIGTERM");
      }
    },
  );
});

describe("packages as users get them", () => {
  test(
    "core alone pulls in no engine, and nothing that needs compiling",
    async () => {
      const folder = await project("core-alone", ["core"]);
      for (const engine of Object.values(ENGINES).flat()) expect(installed(folder, engine), engine).toBe(false);
      const code = `import { defineTask, chain } from "@task-backend/core"; const t = defineTask({ name: "t", handler: async (n) => n + 1 }); console.log(chain("c", [t, t]).name);`;
      expect(await inProject(folder, "esm.mjs", code)).toBe("c");
    },
    INSTALL_MS,
  );

  test.for(ADAPTERS)(
    "%s brings its own engine and no other, under free licences; ESM, and CommonJS through require",
    { timeout: INSTALL_MS },
    async (adapter) => {
      const folder = await project(`with-${adapter}`, ["core", "worker", adapter]);
      for (const [name, engines] of Object.entries(ENGINES))
        for (const engine of engines) expect(installed(folder, engine), `${engine} beside ${adapter}`).toBe(name === adapter);
      for (const [name, licence] of licences(folder)) expect(licence, `the licence of ${name}`).toMatch(FREE);
      const body = `
        const add = defineTask({ name: "add", handler: async ({ a, b }) => a + b });
        if (typeof createAdapter !== "function") throw new Error("no createAdapter");
        console.log(add.name);`;
      const esm = `import { defineTask } from "@task-backend/core"; import { createAdapter } from "@task-backend/${adapter}"; ${body}`;
      const cjs = `const { defineTask } = require("@task-backend/core"); const { createAdapter } = require("@task-backend/${adapter}"); ${body}`;
      expect(await inProject(folder, "esm.mjs", esm)).toBe("add");
      expect(await inProject(folder, "cjs.cjs", cjs)).toBe("add");
      const { stdout } = await run(join(folder, "node_modules/.bin/task-backend-worker"), ["--version"], { cwd: folder });
      expect(stdout.trim()).toMatch(/^\d+\.\d+\.\d+$/);
    },
  );

  test(
    "an application in CommonJS submits, and the installed worker command runs it",
    async () => {
      const folder = await project("application", ["core", "worker", "sqlite"]);
      writeFileSync(
        join(folder, "tasks.cjs"),
        `const { defineTask } = require("@task-backend/core");
         exports.double = defineTask({ name: "double", handler: async (n) => 2 * n });`,
      );
      const env = {
        ...process.env,
        TASK_BACKEND_TYPE: "sqlite",
        TASK_BACKEND_URL: `sqlite:${join(folder, "tasks.db")}`,
        NODE_ENV: "production",
      };
      const worker = execFile(join(folder, "node_modules/.bin/task-backend-worker"), ["--queues", "default", "--tasks", "./tasks.cjs"], {
        cwd: folder,
        env,
      });
      const exited = new Promise((resolve) => worker.once("exit", resolve));
      writeFileSync(
        join(folder, "main.cjs"),
        `const { getBackend } = require("@task-backend/core");
         const { double } = require("./tasks.cjs");
         (async () => {
           const backend = await getBackend();
           console.log(await (await backend.submit(double, 21)).output({ timeout: "30s" }));
           await backend.close();
         })();`,
      );
      const { stdout } = await run(process.execPath, ["main.cjs"], { cwd: folder, env });
      expect(stdout.trim()).toBe("42");
      worker.kill("SIGTERM");
      expect(await exited).toBe(0);
    },
    INSTALL_MS,
  );

  test(
    "types are right where the application has no types of Node, and asks for none",
    async () => {
      const versions = TYPESCRIPTS.slice(1);
      const aliases = versions.map((version) => `ts-${version.replaceAll(".", "-")}@npm:typescript@${version}`);
      const folder = await project("types-alone", ["core", "worker", "conformance", "sqlite"], aliases);
      writeFileSync(join(folder, "main.ts"), TYPED_SQLITE);
      for (const options of [{}, { types: [], lib: ["ES2022"] }]) {
        const compilerOptions = { target: "ES2022", module: "NodeNext", strict: true, skipLibCheck: false, noEmit: true, ...options };
        writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
        for (const version of versions) expect(await compile(folder, version), `TypeScript ${version}`).toBe("");
      }
    },
    INSTALL_MS,
  );

  test.for([
    ["core, worker, conformance and sqlite", ["core", "worker", "conformance", "sqlite"], TYPED_SQLITE, /: error /],
    // Not every TypeScript accepts the declarations of the engines' SDKs; ours and the application's must be right.
    ["all adapters", PACKAGES, TYPED, /^(?!node_modules\/(?!@task-backend\/)).*: error /],
  ] as const)(
    `types of %s are right under strict, every declaration checked, in TypeScript ${TYPESCRIPTS.join(", ")}`,
    { timeout: INSTALL_MS },
    async ([, ours, code, wrong], { task }) => {
      const aliases = TYPESCRIPTS.map((version) => `ts-${version.replaceAll(".", "-")}@npm:typescript@${version}`);
      const folder = await project(`types-${task.id}`, ours, [...aliases, "@types/node@20"]);
      writeFileSync(join(folder, "main.ts"), code);
      const compilerOptions = {
        target: "ES2022",
        lib: ["ES2023", "ESNext.Disposable"],
        module: "NodeNext",
        moduleResolution: "NodeNext",
        strict: true,
        skipLibCheck: false,
        noEmit: true,
        types: ["node"],
      };
      writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
      for (const version of TYPESCRIPTS) {
        const output = await compile(folder, version);
        expect(
          output.split("\n").filter((line) => wrong.test(line)),
          `TypeScript ${version}`,
        ).toEqual([]);
      }
    },
  );
});
