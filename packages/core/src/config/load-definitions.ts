import { statSync } from "node:fs";
import { relative, resolve } from "node:path";
import { glob, isDynamicPattern } from "tinyglobby";
import { isDefinition, type Definition } from "../define/definition.ts";
import { ConfigurationError } from "../values/errors.ts";
import { importModule, isPath, MissingModule } from "./load-module.ts";

/** The definitions that one module exports. */
export interface LoadedModule {
  /** The file or package, as an operator would name it. */
  readonly source: string;
  readonly definitions: readonly Definition[];
}

/**
 * Loads definitions from the exports of modules, TypeScript included.
 * @param names files, folders of them by glob (`"./tasks/**.ts"`), or packages that export tasks
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
  if (isDynamicPattern(name)) {
    const files = await glob(name, { cwd: root, absolute: true, ignore: ["**/node_modules/**", "**/*.d.ts"] });
    if (files.length === 0)
      throw new ConfigurationError(`No file matches "${name}" in ${root}; give the path of a module that exports tasks.`);
    return files.sort().map((file) => `./${relative(root, file)}`);
  }
  // `tasks.ts` is a file when there is one; `tasks` may be a package.
  return [isPath(name) || !isFile(resolve(root, name)) ? name : `./${name}`];
}

async function load(source: string, root: string): Promise<Definition[]> {
  let exports: Record<string, unknown>;
  try {
    exports = await importModule(source, root);
  } catch (cause) {
    if (!(cause instanceof MissingModule))
      throw new ConfigurationError(`Module "${source}" failed to load: ${(cause as Error).message}`, { cause });
    const remedy = isPath(source)
      ? "check the path, relative to the working folder"
      : `give a path that starts with "./", or run npm install ${source}`;
    throw new ConfigurationError(`There is no module "${source}" in ${root}; ${remedy}.`, { cause });
  }
  const definitions = new Set([...Object.values(exports), ...membersOf(exports["default"])].filter(isDefinition));
  if (definitions.size === 0)
    throw new ConfigurationError(
      `Module "${source}" exports no task and no workflow; export what defineTask, defineWorkflow, chain or dag make.`,
    );
  return [...definitions];
}

function membersOf(value: unknown): unknown[] {
  return typeof value === "object" && value !== null && !isDefinition(value) ? Object.values(value) : [];
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
