import type { JobJson } from "bullmq";

/** The most text that one statement may hold: jsonb is limited to 256 MB. */
const BULK_CHARACTERS = 32 * 1024 * 1024;

/** A job to add. */
export interface Added {
  readonly job: JobJson;
  readonly jobId: string;
}

/** Splits jobs, in order, into bulks that each fit into one statement. */
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
