import type { CaseContext } from "./context.ts";
import type { Outcome, ReportWriter } from "./report.ts";
import type { ConformanceCase } from "./suite.ts";

/** Runs one case, closes everything it opened, and reports its result. */
export async function runCase(
  one: ConformanceCase,
  context: CaseContext,
  skip: (reason: string) => void,
  report?: ReportWriter,
): Promise<void> {
  const startedAt = performance.now();
  const tried = report?.begin(one) ?? 0;
  const tell = async (outcome: Outcome, reason?: string): Promise<void> =>
    report?.add(one, tried, outcome, performance.now() - startedAt, reason);
  let skipped: string | undefined;
  try {
    skipped = await reasonToSkip(one, context);
    if (skipped === undefined) await one.run(context);
  } catch (error) {
    await tell("failed");
    throw error;
  } finally {
    await context.close();
  }
  await tell(skipped === undefined ? "passed" : "skipped", skipped);
  if (skipped !== undefined) skip(skipped);
}

async function reasonToSkip({ needs }: ConformanceCase, context: CaseContext): Promise<string | undefined> {
  if (needs.length === 0) return undefined;
  const { engine, features } = await context.capabilities();
  const missing = needs.filter((feature) => features[feature] === "unsupported");
  return missing.length === 0 ? undefined : `${engine} declares ${missing.join(", ")} unsupported`;
}
