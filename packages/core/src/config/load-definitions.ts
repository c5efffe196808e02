import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { glob, isDynamicPattern } from "tinyglobby";
import { isDefinition, type Definition } from "../define/definition.ts";
import { ConfigurationError } from "../values/errors.ts";
import { nearest } from "../define/checks.ts";
import { whyOf } from "./load-failure.ts";
import { importModule, isPath, MissingModule } from "./load-module.ts";

/** The definitions that one module exports. */
export interface LoadedModule {
  /** The file or package, in the form that an operator would write. */
  readonly source: string;
  readonly definitions: readonly Definition[];
}

/**
 * Loads definitions from the exports of modules, TypeScript included.
 * @param names files, folders of them by glob (`"./tasks/**.ts"`), or packages that export tasks; a name that exists as it is
 * given is no glob, so that folders may be named `(group)` or `[slug]`
 * @param root relative paths and packages are resolved from here
 * @throws ConfigurationError for a name that leads to no module, a module that fails to load, or one without definitions
 */
export async function loadDefinitions(names: readonly string[], root: string): Promise<LoadedModule[]> {
  const sources: string[] = [];
  for (const name of names) sources.push(...(await expand(name, root)));
  const modules = [];
  for (const source of new Set(sources)) modules.push({ source, definitions: await load(source, root) });
  return modules;
}

async function expand(name: string, root: string): Promise<string[]> {
  // `tasks.ts` is a file if one exists; `tasks` may be a package.
  if (isFile(resolve(root, name))) return [isPath(name) ? name : `./${name}`];
  const { folder, pattern } = split(name, root);
  if (!isDynamicPattern(pattern)) return [name];
  const files = await glob(pattern, { cwd: folder, absolute: true, ignore: ["**/node_modules/**", "**/*.d.ts", "**/*.d.[cm]ts"] });
  if (files.length === 0)
    throw new ConfigurationError(`No file matches "${name}" in ${root}; give the path of a module that exports tasks.`);
  return files.sort().map((file) => `./${relative(root, file)}`);
}

/** Splits a pattern into the folders at its start that exist under exactly those names, and the rest. */
function split(name: string, root: string): { readonly folder: string; readonly pattern: string } {
  const parts = name.split("/");
  let known = 0;
  while (known < parts.length && isFolder(resolve(root, `${parts.slice(0, known + 1).join("/")}/`))) known++;
  return { folder: resolve(root, `${parts.slice(0, known).join("/")}${known > 0 ? "/" : ""}`), pattern: parts.slice(known).join("/") };
}

async function load(source: string, root: string): Promise<Definition[]> {
  let exports: Record<string, unknown>;
  try {
    exports = await importModule(source, root);
  } catch (cause) {
    if (!(cause instanceof MissingModule)) throw new ConfigurationError(`Module "${source}" failed to load: ${whyOf(cause)}`, { cause });
    throw new ConfigurationError(`There is no module "${source}" in ${root}; ${remedyFor(source, root)}.`, { cause });
  }
  const definitions = new Set([...Object.values(exports), ...membersOf(exports["default"])].filter(isDefinition));
  if (definitions.size === 0)
    throw new ConfigurationError(
      `Module "${source}" exports no task and no workflow; export what defineTask, defineWorkflow, chain or dag make.`,
    );
  return [...definitions];
}

/** The advice is never to install a package of that name: the name may be a typing error, and the package a stranger's. */
function remedyFor(source: string, root: string): string {
  const path = resolve(root, source);
  if (isFolder(path)) return `it is a folder: give its modules, such as "${source.replace(/[/\\]+$/, "")}/*.ts"`;
  const names = new Map(filesIn(dirname(path)).flatMap((name) => [[bare(name), name] as const, [name, name] as const]));
  const meant = nearest(basename(path), [...names.keys()]);
  const found = meant === undefined ? undefined : names.get(meant);
  if (found !== undefined) return `"./${relative(root, join(dirname(path), found))}" is there`;
  return isPath(source)
    ? "check the path, relative to the working folder"
    : 'give the path of a file, starting with "./", or the name of a package that is installed in the application';
}

function bare(name: string): string {
  return name.replace(/\.[^.]+$/, "");
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => /\.[cm]?[jt]sx?$/.test(name) && !/\.d\.[cm]?ts$/.test(name));
  } catch {
    return [];
  }
}

function membersOf(value: unknown): unknown[] {
  return typeof value === "object" && value !== null && !isDefinition(value) ? Object.values(value) : [];
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
