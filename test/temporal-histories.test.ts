import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { createBackend, defineTask, defineWorkflow, silentLogger } from "@task-backend/core";
import { temporal } from "@task-backend/temporal";
import { Client, Connection } from "@temporalio/client";
import { temporal as proto } from "@temporalio/proto";
import { DefaultLogger, Runtime, Worker } from "@temporalio/worker";
import { expect, test } from "vitest";
import { onEngine } from "./engines/required.ts";

/*
 * Workflow runs that started under earlier versions of the interpreter go on under this one. `RECORD=name npx vitest run
 * test/temporal-histories.test.ts` with TEMPORAL_ADDRESS set adds a new history; existing ones stay unchanged.
 */

const folder = join(dirname(fileURLToPath(import.meta.url)), "histories");
const bundle = join(dirname(createRequire(import.meta.url).resolve("@task-backend/temporal/package.json")), "dist/interpreter.js");

test("recorded histories replay without a difference", async () => {
  Runtime.install({ shutdownSignals: [], logger: new DefaultLogger("ERROR") });
  const files = readdirSync(folder).filter((file) => file.endsWith(".bin"));
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) {
    const history = proto.api.history.v1.History.decode(readFileSync(join(folder, file)));
    expect(history.events.length).toBeGreaterThan(20);
    await Worker.runReplayHistory({ workflowBundle: { codePath: bundle } }, history, idOf(history));
  }
  // A changed history must fail.
  const [first = ""] = files;
  const other = proto.api.history.v1.History.decode(readFileSync(join(folder, first)));
  const scheduled = other.events.find((event) => event.activityTaskScheduledEventAttributes);
  if (scheduled?.activityTaskScheduledEventAttributes) scheduled.activityTaskScheduledEventAttributes.activityId = "another";
  await expect(Worker.runReplayHistory({ workflowBundle: { codePath: bundle } }, other, idOf(other))).rejects.toThrow(/[Nn]on-?determinis/);
}, 60_000);

function idOf({ events }: proto.api.history.v1.IHistory): string {
  return events?.[0]?.workflowExecutionStartedEventAttributes?.workflowId ?? "";
}

const name = process.env["RECORD"];
if (name) {
  onEngine("temporal", "TEMPORAL_ADDRESS", "recording", (address) => {
    test("records a history with every kind of command", async () => {
      const queue = `q-${randomBytes(5).toString("hex")}`;
      const step = defineTask({
        name: "step",
        queue,
        retry: { attempts: 2, backoff: { delay: 10, jitter: false } },
        handler: async ({ n, waitMs = 0, fail = false }: { n: number; waitMs?: number; fail?: boolean }) => {
          await new Promise((resolve) => setTimeout(resolve, waitMs));
          if (fail) throw new Error("as asked");
          return n + 1;
        },
      });
      const child = defineWorkflow({ name: "child", queue, handler: async (wf, n: number) => wf.run(step, { n }) });
      const all = defineWorkflow({
        name: "all_commands",
        queue,
        handler: async (wf, n: number) => {
          const both = await Promise.all([wf.run(step, { n }), wf.run(child, n)]);
          const failed = await wf.run(step, { n, fail: true }).catch((error: Error) => error.name);
          const first = await Promise.race([wf.run(step, { n, waitMs: 5_000 }), wf.sleep(100)]);
          const late = await wf.waitForSignal("never", { timeout: "200ms" }).catch((error: Error) => error.name);
          return [both, failed, first ?? null, late ?? null, await wf.waitForSignal("go")];
        },
      });
      const backend = await createBackend(temporal({ address }), { log: silentLogger });
      await backend.register(step, child, all).startWorker();
      const run = await backend.submit(all, 1);
      await backend.signal(run.id, "go", { value: 7 }, { dedupeId: "once" });
      await run.output({ timeout: "30s" });
      const connection = await Connection.connect({ address });
      const history = await new Client({ connection }).workflow.getHandle(run.id.replace("workflow:", "")).fetchHistory();
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, `${name}.bin`), proto.api.history.v1.History.encode(history).finish());
      await connection.close();
      await backend.close();
    }, 60_000);
  });
}
