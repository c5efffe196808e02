import { statSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, isAbsolute, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { createJiti } from "jiti";

/** Whether a name is a path rather than a package: `./x`, `/x`, or a file with a code extension. */
export function isPath(name: string): boolean {
  return name.startsWith(".") || isAbsolute(name) || /\.[cm]?[jt]s$/.test(name);
}

/** There is no such file or package; what else goes wrong while a module loads is thrown as it is. */
export class MissingModule extends Error {}

/**
 * Imports a module by path or package name, resolved from a folder of the application. TypeScript is loaded as it is.
 * @throws MissingModule
 */
export async function importModule(name: string, root: string): Promise<Record<string, unknown>> {
  const file = isPath(name) ? existing(resolve(root, name)) : resolvePackage(name, root);
  if (/\.[cm]?tsx?$/.test(extname(file))) {
    return createJiti(pathToFileURL(join(root, "package.json")).href).import(file);
  }
  return (await import(pathToFileURL(file).href)) as Record<string, unknown>;
}

function existing(path: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isFile()) return path;
  throw new MissingModule(`There is no file ${path}.`);
}

/** From the application, or from beside this package for hoisted and global installations. */
function resolvePackage(name: string, root: string): string {
  for (const from of [join(root, "package.json"), import.meta.url]) {
    try {
      return createRequire(from).resolve(name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "MODULE_NOT_FOUND") throw error;
    }
  }
  throw new MissingModule(`There is no package ${name}.`);
}
