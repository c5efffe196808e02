/** The parts that the pipeline extracts from one document. */
export interface Extracted {
  frontMatter: Record<string, string>;
  headings: { level: number; text: string }[];
  links: string[];
  fences: { language: string; lines: number }[];
  prose: string;
}

/** Splits a Markdown document into front matter, headings, links, code fences and prose. */
export function parseMarkdown(source: string): Extracted {
  const extracted: Extracted = { frontMatter: {}, headings: [], links: [], fences: [], prose: "" };
  const lines = withoutFrontMatter(source, extracted.frontMatter).split(/\r?\n/);
  const prose: string[] = [];
  let fence: { mark: string; language: string; lines: number } | undefined;
  for (const line of lines) {
    const mark = /^\s*(`{3,}|~{3,})\s*([\w+#.-]*)/.exec(line);
    if (fence) {
      if (mark?.[1]?.startsWith(fence.mark)) {
        extracted.fences.push({ language: fence.language, lines: fence.lines });
        fence = undefined;
      } else fence.lines++;
    } else if (mark?.[1]) {
      fence = { mark: mark[1], language: mark[2]?.toLowerCase() || "plain", lines: 0 };
    } else {
      const heading = /^(#{1,6})\s+(.+?)\s*#*$/.exec(line);
      if (heading?.[1] && heading[2]) extracted.headings.push({ level: heading[1].length, text: heading[2] });
      for (const link of line.matchAll(/\[[^\]]*\]\(\s*<?([^)\s>]+)/g)) if (link[1]) extracted.links.push(link[1]);
      prose.push(line);
    }
  }
  return { ...extracted, prose: prose.join("\n") };
}

export function countWords(prose: string): number {
  return prose.match(/[\p{L}\p{N}]+(?:['’-][\p{L}\p{N}]+)*/gu)?.length ?? 0;
}

function withoutFrontMatter(source: string, into: Record<string, string>): string {
  const block = /^---\r?\n([\s\S]*?)\r?\n---\r?\n/.exec(source);
  if (!block?.[1]) return source;
  for (const line of block[1].split(/\r?\n/)) {
    const [, key, value] = /^([\w-]+):\s*(.*)$/.exec(line) ?? [];
    if (key) into[key] = value ?? "";
  }
  return source.slice(block[0].length);
}
