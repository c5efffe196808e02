import { createRequire } from "node:module";
import { CaseContext } from "./context.ts";
import { runCase } from "./run-case.ts";
import { SABOTAGE_VARIABLE } from "./sabotage.ts";
import type { Saboteur } from "./saboteurs.ts";
import type { ConformanceCase, EngineUnderTest } from "./suite.ts";

/**
 * Runs the cases of the saboteur's rule on the sabotaged engine until one fails.
 * @returns the title of the failed case, with its reason; undefined when no case failed
 * @throws when the engine itself cannot be used
 */
export async function catchSaboteur(
  engine: EngineUnderTest,
  saboteur: Saboteur,
  cases: readonly ConformanceCase[],
): Promise<string | undefined> {
  const env = {
    TASK_BACKEND_TYPE: createRequire(import.meta.url).resolve("@task-backend/conformance/sabotage"),
    [SABOTAGE_VARIABLE]: `${saboteur.rule}:${engine.env["TASK_BACKEND_TYPE"]}`,
  };
  await requireEngine(engine);
  for (const one of cases.filter(({ rule }) => rule === saboteur.rule)) {
    const context = new CaseContext(engine, (adapter) => saboteur.wrap(adapter), env);
    const error = await Promise.race([
      runCase(one, context, () => {}).then(
        () => undefined,
        (thrown: unknown) => thrown as Error,
      ),
      new Promise<Error>((resolve) => setTimeout(() => resolve(new Error(`no end within ${one.timeoutMs} ms`)), one.timeoutMs).unref()),
    ]);
    if (error) return `${one.title}: ${error.message.split("\n")[0]}`;
  }
  return undefined;
}

/** Fails if the engine cannot be used: all cases would fail, and every saboteur would seem to be caught. */
async function requireEngine(engine: EngineUnderTest): Promise<void> {
  const context = new CaseContext(engine);
  try {
    await context.capabilities();
  } finally {
    await context.close();
  }
}
