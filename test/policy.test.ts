import { createBackend, defineTask, defineWorkflow, silentLogger } from "@task-backend/core";
import { sqlite } from "@task-backend/sqlite";
import { expect, test } from "vitest";

test("the policy also holds for the steps of a workflow", async () => {
  const where = defineTask({ name: "where", queue: "fast", handler: async (_: null, context) => [context.queue, context.maxAttempts] });
  const workflow = defineWorkflow({ name: "asks", queue: "fast", handler: async (wf) => wf.run(where, null) });
  const backend = await createBackend(sqlite({ file: ":memory:" }), {
    log: silentLogger,
    tasks: { where: { queue: "slow", retry: { attempts: 9 } } },
  });
  await backend.register(where, workflow).startWorker();
  expect(await (await backend.submit(workflow, null)).output({ timeout: "5s" })).toEqual(["slow", 9]);
  await backend.close();
});
