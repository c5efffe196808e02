import { defineTask, type Run } from "@task-backend/core";
import { casesOf, type ConformanceCase } from "../suite.ts";

/** The cases of one rule about workflows. */
export const workflowCasesOf =
  (rule: number) =>
  (title: string, run: ConformanceCase["run"], timeoutMs = 20_000): ConformanceCase =>
    casesOf(rule)(title, run, { needs: ["workflows"], timeoutMs });

export const increment = defineTask({ name: "increment", handler: async (n: number) => n + 1 });
export const boom = defineTask({
  name: "boom",
  retry: { attempts: 1 },
  handler: async () => {
    throw Object.assign(new Error("broken"), { code: "E_BROKEN" });
  },
});

export async function settled(run: Run): Promise<Awaited<ReturnType<Run["result"]>>> {
  await run.output({ timeout: "15s" }).catch(() => {});
  return run.result();
}
