import { createHash } from "node:crypto";
import { access, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { chain, defineTask } from "@task-backend/core";
import { z } from "zod";
import { countWords, parseMarkdown, type Extracted } from "./markdown.ts";

const queue = "documents";
const retry = { attempts: 3, backoff: { delay: "200ms" } } as const;

const extract = defineTask({
  name: "extract",
  queue,
  retry,
  timeout: "10s",
  input: z.object({ path: z.string(), store: z.string(), fault: z.enum(["once", "always"]).optional() }),
  handler: async ({ path, store, fault }, ctx) => {
    // This fault shows a retry and a failure.
    if (fault === "always" || (fault === "once" && ctx.attempt === 1)) throw new Error(`cannot read ${path} (made to fail ${fault})`);
    return { path, store, ...parseMarkdown(await readFile(path, { encoding: "utf8", signal: ctx.signal })) };
  },
});

interface Analysis {
  path: string;
  store: string;
  title: string;
  words: number;
  languages: Record<string, number>;
  brokenLinks: string[];
}

const analyse = defineTask({
  name: "analyse",
  queue,
  retry,
  handler: async ({ path, store, headings, links, fences, prose }: Extracted & { path: string; store: string }): Promise<Analysis> => {
    const languages: Record<string, number> = {};
    for (const { language } of fences) languages[language] = (languages[language] ?? 0) + 1;
    const relative = links.filter((link) => !/^([a-z][a-z+.-]*:|#|\/)/i.test(link)).map((link) => link.replace(/[#?].*$/, ""));
    const broken: string[] = [];
    for (const link of relative) if (!(await exists(resolve(dirname(path), link)))) broken.push(link);
    return { path, store, title: headings[0]?.text ?? "(untitled)", words: countWords(prose), languages, brokenLinks: broken };
  },
});

const store = defineTask({
  name: "store",
  queue,
  retry,
  handler: async ({ store: folder, ...document }: Analysis) => {
    await mkdir(folder, { recursive: true });
    const file = join(folder, `${createHash("sha1").update(document.path).digest("hex")}.json`);
    await writeFile(file, JSON.stringify(document, null, 2));
    return { ...document, file };
  },
});

/** Processes one document, from its path to its stored analysis. */
export const pipeline = chain("document", [extract, analyse, store]);
export { analyse, extract, store };

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
