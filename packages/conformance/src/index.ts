import { attemptCases } from "./cases/attempts.ts";
import { compositionCases } from "./cases/compositions.ts";
import { replayCases } from "./cases/replay.ts";
import { schedulingCases } from "./cases/scheduling.ts";
import { submitCases } from "./cases/submit.ts";
import { workerCases } from "./cases/workers.ts";
import { workflowCases } from "./cases/workflows.ts";
import { blastRadiusCases } from "./cases/blast-radius.ts";
import { boundaryCases } from "./cases/boundaries.ts";
import { byNameCases } from "./cases/by-name.ts";
import { cleanEndCases } from "./cases/clean-ends.ts";
import { edgeCases } from "./cases/edges.ts";
import { orderCases } from "./cases/order.ts";
import { outsideCases } from "./cases/outside.ts";
import { promptnessCases } from "./cases/promptness.ts";
import { refusalCases } from "./cases/refusals.ts";
import { slowCodeCases } from "./cases/slow-code.ts";
import { CaseContext } from "./context.ts";
import { ReportWriter } from "./report.ts";
import { runCase } from "./run-case.ts";
import type { ConformanceCase, EngineUnderTest, Runner } from "./suite.ts";

export type { Apart, ConformanceCase, EngineUnderTest, Outage, Runner } from "./suite.ts";
export { catchSaboteur } from "./catch-saboteur.ts";
export type { CaseReport, ConformanceReport, FeatureReport, Outcome } from "./report.ts";
export { CaseContext, type AdapterChanges, type WorkerProcess } from "./context.ts";
export { saboteurs, type Saboteur } from "./saboteurs.ts";

/** All cases, ordered by rule. */
export const cases: readonly ConformanceCase[] = [
  submitCases,
  attemptCases,
  schedulingCases,
  workerCases,
  replayCases,
  workflowCases,
  compositionCases,
  byNameCases,
  slowCodeCases,
  promptnessCases,
  blastRadiusCases,
  refusalCases,
  edgeCases,
  cleanEndCases,
  boundaryCases,
  orderCases,
  outsideCases,
]
  .flat()
  .sort((a, b) => a.rule - b.rule);

/**
 * Declares the whole suite for one engine with the caller's test runner.
 * A case that needs a feature which the engine declares unsupported is skipped with that reason; no other case is.
 * @example
 * conformance({ describe, test: test.concurrent }, {
 *   name: "sqlite",
 *   createAdapter: () => sqlite({ file }),
 *   env: { TASK_BACKEND_TYPE: "sqlite", TASK_BACKEND_URL: `sqlite:${file}` },
 *   outage,
 * });
 */
export function conformance(runner: Runner, engine: EngineUnderTest): void {
  const report = engine.report === undefined ? undefined : new ReportWriter(engine, engine.report, cases);
  runner.describe(engine.name, () => {
    // Cases that may take long start first, so that in lanes little is left to wait for at the end.
    for (const one of [...cases].sort((a, b) => b.timeoutMs - a.timeoutMs)) {
      // Several cases share the processor, so the time limit is generous.
      runner.test(one.title, ({ skip }) => runCase(one, new CaseContext(engine), skip, report), one.timeoutMs * 2);
    }
  });
}
