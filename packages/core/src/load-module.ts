import { existsSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, isAbsolute, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { createJiti } from "jiti";

/** Whether a name is a path rather than a package: `./x`, `/x`, or a file with a code extension. */
export function isPath(name: string): boolean {
  return name.startsWith(".") || isAbsolute(name) || /\.[cm]?[jt]s$/.test(name);
}

/**
 * Imports a module by path or package name, resolved from a folder of the application. TypeScript is loaded as it is.
 * Rejects with the error of Node's resolution (`ERR_MODULE_NOT_FOUND`, `MODULE_NOT_FOUND`) when there is none.
 */
export async function importModule(name: string, root: string): Promise<Record<string, unknown>> {
  const path = isPath(name) ? resolve(root, name) : undefined;
  if (path !== undefined && (!existsSync(path) || !statSync(path).isFile())) {
    throw Object.assign(new Error(`There is no file ${path}.`), { code: "MODULE_NOT_FOUND" });
  }
  const file = path ?? resolvePackage(name, root);
  if (/\.[cm]?tsx?$/.test(extname(file))) {
    return (await createJiti(pathToFileURL(join(root, "package.json")).href).import(file)) as Record<string, unknown>;
  }
  return (await import(pathToFileURL(file).href)) as Record<string, unknown>;
}

function resolvePackage(name: string, root: string): string {
  try {
    return createRequire(join(root, "package.json")).resolve(name);
  } catch (error) {
    // Beside this package, for hoisted and global installations.
    if ((error as NodeJS.ErrnoException).code !== "MODULE_NOT_FOUND") throw error;
    return createRequire(import.meta.url).resolve(name);
  }
}
