import type { JobJson } from "bullmq";

/** What one statement may carry: jsonb ends at 256 MB. */
const BULK_CHARACTERS = 32 * 1024 * 1024;

/** A job to be added. */
export interface Added {
  readonly job: JobJson;
  readonly jobId: string;
}

/** In their order, no more at a time than one statement carries. */
export function inBulks(added: readonly Added[]): Added[][] {
  const bulks: Added[][] = [];
  let characters = BULK_CHARACTERS;
  for (const one of added) {
    characters += one.job.data.length;
    if (characters > BULK_CHARACTERS) {
      bulks.push([]);
      characters = one.job.data.length;
    }
    (bulks.at(-1) as Added[]).push(one);
  }
  return bulks;
}
