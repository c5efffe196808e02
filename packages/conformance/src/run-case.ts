import type { CaseContext } from "./context.ts";
import type { ConformanceCase } from "./suite.ts";

/** Runs one case and closes what it opened. */
export async function runCase(one: ConformanceCase, context: CaseContext, skip: (reason: string) => void): Promise<void> {
  try {
    if (one.needs.length > 0) {
      const { engine, features } = await context.capabilities();
      const missing = one.needs.filter((feature) => features[feature] === "unsupported");
      if (missing.length > 0) return skip(`${engine} declares ${missing.join(", ")} unsupported`);
    }
    await one.run(context);
  } finally {
    await context.close();
  }
}
