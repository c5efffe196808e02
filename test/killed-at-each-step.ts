import { expect, test } from "vitest";
import { CaseContext, type EngineUnderTest } from "@task-backend/conformance";
import { shape } from "../packages/conformance/src/fixtures.ts";

/** The number of lines that the workflow's steps write when nothing goes wrong. */
const STEPS = 9;

/** Runs a workflow once for each of its steps: its worker is killed when that step has started, and another goes on. */
export function killedAtEachStep(engine: EngineUnderTest, timeoutMs: number): void {
  test.concurrent.for(Array.from({ length: STEPS }, (_, index) => index + 1))(
    `${engine.name}: a worker killed at step %i of ${STEPS} changes nothing`,
    { timeout: timeoutMs },
    async (step) => {
      const context = new CaseContext(engine);
      try {
        const backend = await context.backend();
        const worker = await context.spawnWorker();
        const run = await backend.submit(shape, { file: context.effects, queue: context.queue }, { queue: context.queue });
        await context.until(`step ${step}`, () => context.lines().length >= step, 30_000);
        worker.kill("SIGKILL");
        await worker.exited;
        await context.spawnWorker();
        expect(await run.output({ timeout: timeoutMs - 20_000 })).toEqual(["a1a2", "b1b2", "c1c2", "fast", "last"]);
      } finally {
        await context.close();
      }
    },
  );
}
