import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { loadDefinitions } from "./load-definitions.ts";
import { importModule } from "./load-module.ts";

const root = mkdtempSync(join(tmpdir(), "load-module-test-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function write(path: string, text: string): void {
  mkdirSync(join(root, path, ".."), { recursive: true });
  writeFileSync(join(root, path), text);
}

const core = join(import.meta.dirname, "../../dist/index.js");
const task = (name: string): string =>
  `import { defineTask } from ${JSON.stringify(core)}; export const task = defineTask({ name: ${JSON.stringify(name)}, handler: async () => 1 });`;

/** Names of tasks have no commas and no "@". */
const nameIn = (folder: string): string => folder.replaceAll(",", ";");

function packageOf(name: string, manifest: object, files: Record<string, string>): void {
  write(`node_modules/${name}/package.json`, JSON.stringify({ name, ...manifest }));
  for (const [path, text] of Object.entries(files)) write(`node_modules/${name}/${path}`, text);
}

const namesOf = async (...names: string[]): Promise<string[]> =>
  (await loadDefinitions(names, root)).flatMap(({ definitions }) => definitions.map(({ name }) => name));

test("a file that exists under exactly the given name is no glob, and folders in front of a glob are none either", async () => {
  write("package.json", "{}");
  for (const folder of ["(group)", "group", "[slug]", "s", "a{b,c}", "ab", "!not", "x+(y)"])
    write(`${folder}/tasks.mjs`, task(nameIn(folder)));
  write("[...all].ts", task("catch all"));
  for (const folder of ["(group)", "[slug]", "a{b,c}", "!not", "x+(y)"]) {
    expect(await namesOf(`./${folder}/tasks.mjs`)).toEqual([nameIn(folder)]);
    expect(await namesOf(`${folder}/tasks.mjs`)).toEqual([nameIn(folder)]);
    expect(await namesOf(`./${folder}/*.mjs`)).toEqual([nameIn(folder)]);
    expect(await namesOf(join(root, folder, "*.mjs"))).toEqual([nameIn(folder)]);
  }
  expect(await namesOf("./[...all].ts")).toEqual(["catch all"]);
  expect(await namesOf("./{group,s}/*.mjs")).toEqual(["group", "s"]);
});

test("packages are resolved as Node's import does, from the application", async () => {
  packageOf("modern", { type: "module", exports: { ".": { import: "./m.mjs" } } }, { "m.mjs": "export const from = 'import';" });
  packageOf(
    "dual",
    { exports: { import: "./m.mjs", require: "./m.cjs" } },
    { "m.mjs": "export const from = 'import';", "m.cjs": "exports.from = 'require';" },
  );
  packageOf("sync", { exports: { "module-sync": "./m.mjs", default: "./m.cjs" } }, { "m.mjs": "export const from = 'sync';", "m.cjs": "" });
  packageOf("classic", {}, { "index.js": "exports.from = 'index';" });
  packageOf("@acme/sub", { exports: { "./tasks": "./t.js" } }, { "t.js": "exports.from = 'sub';" });
  packageOf("name.js", {}, { "index.js": "exports.from = 'dotted';" });
  const from = async (name: string): Promise<unknown> => (await importModule(name, join(root))).from;
  expect(await Promise.all(["modern", "dual", "sync", "classic", "@acme/sub/tasks", "name.js"].map(from))).toEqual([
    "import",
    "import",
    "sync",
    "index",
    "sub",
    "dotted",
  ]);
  await expect(from("@acme/sub")).rejects.toThrow(/the package in .*@acme.sub has nothing to import as "@acme\/sub"/);
  await expect(from("fs")).rejects.toThrow("There is no package fs.");
});

test("what is not there is told with what is, and never with the advice to install a stranger's package", async () => {
  write("jobs/images.ts", task("images"));
  write("taks.ts", task("taks"));
  const message = async (name: string): Promise<string> => ((await namesOf(name).catch((error: unknown) => error)) as Error).message;
  expect(await message("jobs/images")).toContain('"./jobs/images.ts" is there');
  expect(await message("./jobs/image.ts")).toContain('"./jobs/images.ts" is there');
  expect(await message("tasks")).toContain('"./taks.ts" is there');
  expect(await message("./jobs/")).toContain('it is a folder: give its modules, such as "./jobs/*.ts"');
  expect(await message("no-such-package")).not.toContain("npm install");
});

test("a module that fails to load is one line with the place", async () => {
  write("throws.ts", "const x: number = 1;\nthrow new Error('first\\n  second' + x);");
  write("syntax.ts", "export const a = 1;\nexport const b = ;");
  write("syntax.mjs", "export const a = 1;\nexport const b = ;");
  write("deep.ts", "import './lib/throws.mjs';");
  write("lib/throws.mjs", "\nnowhere();");
  const message = async (name: string): Promise<string> => ((await namesOf(name).catch((error: unknown) => error)) as Error).message;
  expect(await message("./throws.ts")).toMatch(/"\.\/throws\.ts" failed to load: first second1 \(at .*throws\.ts:2:\d+\)$/);
  expect(await message("./syntax.ts")).toMatch(/syntax\.ts:2:\d+/);
  expect(await message("./syntax.mjs")).toMatch(/syntax\.mjs:2:\d+/);
  expect(await message("./deep.ts")).toMatch(/nowhere is not defined \(at .*lib.throws\.mjs:2:1\)$/);
});
