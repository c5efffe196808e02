import { statSync } from "node:fs";
import { createRequire, isBuiltin } from "node:module";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createJiti } from "jiti";
import { whereOf, whyOf } from "./load-failure.ts";

/** The conditions under which Node's own `import` reads the exports of a package. */
const CONDITIONS = ["node", "import", "module-sync", "node-addons"];
const CODE = /\.[cm]?[jt]sx?$/;
const TYPESCRIPT = /\.([cm]?ts|tsx)$/;

/** Whether a name can only be a path: `./x`, `../x`, `/x`. */
export function isPath(name: string): boolean {
  return /^\.{1,2}([/\\]|$)/.test(name) || isAbsolute(name);
}

/** There is no such file or package; the message says what to do. Any other error while a module loads is a `LoadFailure`. */
export class MissingModule extends Error {}

/** A module exists and cannot be loaded. The message is one line, with the place where it is known. */
class LoadFailure extends Error {}

/**
 * Imports a module by path or package name, resolved from a folder of the application as Node's own `import` does there.
 * TypeScript is loaded as it is. A name such as `tasks.ts` is a file if one exists.
 * @throws MissingModule, LoadFailure
 */
export async function importModule(name: string, root: string): Promise<Record<string, unknown>> {
  const file = resolveModule(name, root);
  try {
    if (TYPESCRIPT.test(file)) return await jitiOf(root).import(file);
    return (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (cause) {
    throw new LoadFailure(whereOf(cause, file), { cause });
  }
}

function resolveModule(name: string, root: string): string {
  const path = resolve(root, name);
  if (isPath(name) || (CODE.test(name) && isFile(path))) return existing(path);
  const found = resolveAsImport(name, root) ?? resolveAsRequire(name, root);
  if (found !== undefined) return found;
  throw new MissingModule(CODE.test(name) ? `There is no file ${path}, and no package of that name.` : `There is no package ${name}.`);
}

function existing(path: string): string {
  if (isFile(path)) return path;
  const folder = statSync(path, { throwIfNoEntry: false })?.isDirectory();
  throw new MissingModule(folder ? `${path} is a folder.` : `There is no file ${path}.`);
}

/** Resolves a name from the application, or from this package's folder for hoisted and global installations. */
function resolveAsImport(name: string, root: string): string | undefined {
  if (isBuiltin(name)) return undefined;
  for (const from of [join(root, "package.json"), fileURLToPath(import.meta.url)]) {
    try {
      return fileURLToPath(createJiti(from).esmResolve(name, { conditions: [...CONDITIONS, ...ownConditions()] }));
    } catch (cause) {
      const folder = packageFolder(name, dirname(from));
      // The package is there and does not export this name: installing it again would not help.
      if (folder !== undefined)
        throw new LoadFailure(`the package in ${folder} has nothing to import as "${name}": ${whyOf(cause)}`, { cause });
    }
  }
  return undefined;
}

/** Where packages are not in folders of node_modules, only the CommonJS loader can find them. */
function resolveAsRequire(name: string, root: string): string | undefined {
  if (isBuiltin(name)) return undefined;
  try {
    return createRequire(join(root, "package.json")).resolve(name);
  } catch {
    return undefined;
  }
}

function packageFolder(name: string, from: string): string | undefined {
  const own = name.split("/", name.startsWith("@") ? 2 : 1).join("/");
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, "node_modules", own);
    if (isFile(join(candidate, "package.json"))) return candidate;
    if (folder === dirname(folder)) return undefined;
  }
}

/** The conditions that Node was started with: `--conditions=NAME`, `-C NAME`. */
function ownConditions(): string[] {
  const options = [process.env["NODE_OPTIONS"] ?? "", ...process.execArgv].join(" ");
  return [...options.matchAll(/(?:^|\s)(?:--conditions|-C)[= ]([^\s"]+)/g)].map(([, name = ""]) => name);
}

function jitiOf(root: string): ReturnType<typeof createJiti> {
  return createJiti(pathToFileURL(join(root, "package.json")).href);
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
