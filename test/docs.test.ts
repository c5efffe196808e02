import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { parse } from "yaml";
import { afterAll, describe, expect, test } from "vitest";

/*
 * Tests the code in the documentation: every TypeScript block is compiled under strict, and those that begin with "// run" are run;
 * those that begin with "// NAME.ts" can be imported by the other blocks of their page. YAML is parsed, and links must lead to a file.
 *
 * Code that a fragment leaves out stands before it in a comment that readers do not see: <!-- given: const url = ""; -->
 */

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const run = promisify(execFile);
const require = createRequire(import.meta.url);
const folder = mkdtempSync(join(tmpdir(), "task-backend-docs-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Block {
  readonly language: string;
  readonly code: string;
  readonly given: string;
  readonly line: number;
}

const pages = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  ...markdownIn("docs"),
  ...markdownIn("packages"),
  ...markdownIn("examples"),
];

function markdownIn(where: string): string[] {
  return readdirSync(join(root, where), { withFileTypes: true }).flatMap((entry) => {
    if (entry.name === "node_modules" || entry.name === "dist") return [];
    const path = join(where, entry.name);
    return entry.isDirectory() ? markdownIn(path) : entry.name.endsWith(".md") && entry.name !== "CHANGELOG.md" ? [path] : [];
  });
}

function blocksOf(page: string): Block[] {
  const text = readFileSync(join(root, page), "utf8");
  const pattern = /(?:<!-- given:([\s\S]*?)-->\s*)?^```(\w+)\n([\s\S]*?)^```$/gm;
  return [...text.matchAll(pattern)].map(({ 1: given = "", 2: language = "", 3: code = "", index }) => ({
    language,
    code,
    given,
    line: text.slice(0, index).split("\n").length,
  }));
}

/** Writes a project that resolves the built packages, with the page's modules and one file for each block. */
function write(page: string, blocks: readonly Block[]): { readonly folder: string; readonly files: readonly string[] } {
  const place = join(folder, page.replaceAll(/[/.]/g, "_"));
  mkdirSync(place);
  symlinkSync(join(root, "node_modules"), join(place, "node_modules"));
  writeFileSync(join(place, "package.json"), '{ "type": "module" }');
  const files = blocks.map((block) => {
    const name = /^\/\/ ([\w.-]+)\.ts\n/.exec(block.code)?.[1] ?? `block-${block.line}`;
    writeFileSync(join(place, `${name}.ts`), `${block.given}\n${block.code}\nexport {};\n`);
    return `${name}.ts`;
  });
  const compilerOptions = {
    target: "ES2022",
    lib: ["ES2023", "ESNext.Disposable"],
    module: "NodeNext",
    moduleResolution: "NodeNext",
    allowImportingTsExtensions: true,
    strict: true,
    skipLibCheck: true,
    noEmit: true,
    preserveSymlinks: true,
    types: ["node"],
    typeRoots: [join(root, "node_modules/@types")],
  };
  writeFileSync(join(place, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
  return { folder: place, files };
}

/** Codes that users never see. */
const BETWEEN_WORKERS = ["NOT_HERE"];

describe("documentation", () => {
  test.for(pages.filter((page) => blocksOf(page).some(({ language }) => language === "ts")))(
    "%s: its TypeScript compiles, and runs where it says so",
    { timeout: 60_000 },
    async (page) => {
      const blocks = blocksOf(page).filter(({ language }) => language === "ts");
      const { folder: place, files } = write(page, blocks);
      const output = await run(process.execPath, [require.resolve("typescript/bin/tsc"), "-p", "."], { cwd: place }).then(
        () => "",
        ({ stdout }: { stdout: string }) => stdout,
      );
      expect(output).toBe("");
      const jiti = join(dirname(require.resolve("jiti/package.json")), "lib/jiti-cli.mjs");
      for (const [index, block] of blocks.entries())
        if (block.code.startsWith("// run\n")) await run(process.execPath, [jiti, files[index] as string], { cwd: place });
    },
  );

  test.for(pages)("%s: its YAML and JSON can be read, and its links lead somewhere", (page) => {
    for (const { language, code } of blocksOf(page)) {
      if (language === "yaml") parse(code);
      if (language === "json") JSON.parse(code);
    }
    const text = readFileSync(join(root, page), "utf8");
    const dead = [...text.matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)/g)]
      .map(({ 1: link = "" }) => link)
      .filter((link) => !existsSync(resolve(root, dirname(page), link)));
    expect(dead, `links of ${relative(root, page)}`).toEqual([]);
  });

  test("errors.md tells of every code, and of no other", () => {
    const sources = readdirSync(join(root, "packages"), { recursive: true, encoding: "utf8" })
      .filter((path) => /[/\\]src[/\\].*\.ts$/.test(path) && !/(test|test-d)\.ts$|^conformance/.test(path))
      .map((path) => readFileSync(join(root, "packages", path), "utf8"));
    const given = /(?:super\(\s*|errorRecord\(\s*"\w+",\s*|code: |code \?\? )"([A-Z]+(?:_[A-Z]+)*)"/g;
    const named = sources.filter((text) => /error/i.test(text)).flatMap((text) => [...text.matchAll(given)].map(([, code = ""]) => code));
    // Codes that begin with ERR_ are Node's.
    const codes = named.filter((code) => !code.startsWith("ERR_"));
    const table = readFileSync(join(root, "docs/errors.md"), "utf8").matchAll(/^\| (`.+?`) +\|/gm);
    const told = [...table].flatMap(([, cell = ""]) => [...cell.matchAll(/`(\w+)`/g)].map(([, code = ""]) => code));
    expect(codes.filter((code) => !told.includes(code) && !BETWEEN_WORKERS.includes(code))).toEqual([]);
    expect(told.filter((code) => !sources.some((text) => text.includes(`"${code}"`)))).toEqual([]);
    expect(told.length).toBeGreaterThan(20);
  });
});
