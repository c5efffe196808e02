import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createJiti } from "jiti";
import { toErrorRecord } from "../values/error-record.ts";

/** The folder of this package: a stack frame in it says nothing about the application. */
const OWN_FOLDER = folderWith("package.json", dirname(fileURLToPath(import.meta.url)));

/**
 * Why a module could not be loaded, in one line, with the file and line if they are known.
 * @param file the requested module; the error may come from one that it imports
 */
export function whereOf(thrown: unknown, file: string): string {
  const why = whyOf(thrown).replace(/^ParseError: /, "");
  if (/:\d+:\d+\b/.test(why)) return why.replace(/ (\S+:\d+:\d+)$/, " (at $1)");
  const place = placeIn(toErrorRecord(thrown).stack ?? "") ?? (thrown instanceof SyntaxError ? placeOfSyntaxError(file) : undefined);
  return place === undefined ? why : `${why} (at ${place})`;
}

/** The message of a thrown value, in one line. */
export function whyOf(thrown: unknown): string {
  return toErrorRecord(thrown)
    .message.trim()
    .replace(/\s*\n\s*/g, " ");
}

/** The place in a stack that is innermost in the application's code. */
function placeIn(stack: string): string | undefined {
  for (const [, place = ""] of stack.matchAll(/^\s+at (?:.*?[ (])?((?:file:\/\/|\/|[A-Za-z]:\\)[^\n]*?:\d+:\d+)\)?$/gm)) {
    const path = place.replace(/^(file:.*)(:\d+:\d+)$/, (_, url: string, at: string) => fileURLToPath(url) + at);
    if (!path.includes("node_modules") && !path.startsWith(OWN_FOLDER)) return path;
  }
  return undefined;
}

/** The place of a syntax error in a JavaScript module. Node does not tell it, so the file is parsed once more. */
function placeOfSyntaxError(file: string): string | undefined {
  const answer = createJiti(file, { fsCache: false }).transform({ source: readFileSync(file, "utf8"), filename: file, async: true });
  // Jiti does not throw; it returns code that would.
  const [, line, column] = /^exports\.__JITI_ERROR__ = .*?"line":(\d+),"column":(\d+)/.exec(answer) ?? [];
  return line === undefined ? undefined : `${file}:${line}:${column}`;
}

/** The nearest folder at or above `from` that holds such a file; `from` when there is none. */
export function folderWith(file: string, from: string): string {
  for (let folder = from; ; folder = dirname(folder)) {
    if (existsSync(join(folder, file))) return folder;
    if (folder === dirname(folder)) return from;
  }
}
