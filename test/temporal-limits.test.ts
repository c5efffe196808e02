import { createBackend, defineTask, defineWorkflow, silentLogger } from "@task-backend/core";
import { temporal } from "@task-backend/temporal";
import { Connection } from "@temporalio/client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Server } from "../engines/engine.ts";
import { discard } from "../engines/index.ts";
import { SHORT_HISTORIES, temporal as engine } from "../engines/temporal.ts";
import { onEngine } from "./engines/required.ts";

/*
 * Temporal's limits: histories, pending activities, messages. These tests' own server has a namespace in which
 * histories are continued as new after a hundred events.
 */

const size = defineTask({ name: "size", handler: async ({ n, text = "" }: { n: number; text?: string }) => n + text.length });
const text = defineTask({ name: "text", handler: async (length: number) => "x".repeat(length) });

onEngine("temporal", "TEMPORAL_ADDRESS", "temporal at its limits", () => {
  describe("temporal at its limits", () => {
    let server: Server;
    let address: string;
    beforeAll(async () => {
      server = await engine.start(engine.find() as string);
      address = server.env[engine.variable] as string;
      const connection = await Connection.connect({ address });
      const workflowExecutionRetentionPeriod = { seconds: (24 * 3600) as never };
      await connection.workflowService.registerNamespace({ namespace: SHORT_HISTORIES, workflowExecutionRetentionPeriod });
      await connection.close();
    }, 60_000);
    afterAll(() => discard(server));
    const open = (namespace: string) => createBackend(temporal({ address, namespace }), { log: silentLogger });

    test("600 steps at once, then a few whose inputs are larger than one message together", async () => {
      const wide = defineWorkflow({
        name: "wide",
        handler: async (wf, steps: number) => {
          const numbers = await Promise.all(Array.from({ length: steps }, (_, n) => wf.run(size, { n })));
          const large = await Promise.all(Array.from({ length: 8 }, (_, n) => wf.run(size, { n, text: "x".repeat(600_000) })));
          return [numbers.reduce((sum, n) => sum + n, 0), large.reduce((sum, n) => sum + n, 0)];
        },
      });
      const backend = await open("default");
      backend.register(size, wide);
      await backend.startWorker({ concurrency: 50 });
      expect(await (await backend.submit(wide, 600)).output({ timeout: "100s" })).toEqual([(600 * 599) / 2, 8 * 600_000 + 28]);
      await backend.close();
    }, 120_000);

    test("a journal that does not fit into the next history settles the run with what to do about it", async () => {
      const long = defineWorkflow({
        name: "long",
        handler: async (wf, large: number) => {
          for (let n = 0; n < large; n++) await wf.run(text, 900_000);
          for (let n = 0; n < 40; n++) await wf.run(size, { n });
          return "the end";
        },
      });
      const backend = await open(SHORT_HISTORIES);
      backend.register(text, size, long);
      await backend.startWorker();
      const [small, large] = [await backend.submit(long, 1), await backend.submit(long, 2)];
      expect(await small.output({ timeout: "60s" })).toBe("the end");
      await expect(large.output({ timeout: "60s" })).rejects.toMatchObject({ failure: { code: "JOURNAL_TOO_LARGE" } });
      await backend.close();
    }, 120_000);
  });
});
