import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { createBackend, defineTask, defineWorkflow, silentLogger } from "@task-backend/core";
import { temporal } from "@task-backend/temporal";
import { expect, test } from "vitest";
import { z } from "zod";
import { onEngine } from "./engines/required.ts";

/*
 * Values that Temporal gives differently at a replay: times, and ticks that took too long.
 */

const newQueue = (): string => `q-${randomBytes(5).toString("hex")}`;

onEngine("temporal", "TEMPORAL_ADDRESS", "temporal replays slow ticks", (address) => {
  const open = () => createBackend(temporal({ address, heartbeatTimeout: "3s" }), { log: silentLogger });

  test("a first tick that takes longer than a local activity may is replayed by another worker, with the times it had", async () => {
    const queue = newQueue();
    const seen: number[] = [];
    let slow = false;
    const input = z.null().refine(async () => {
      if (slow) await pause(9_000);
      slow = false;
      return true;
    });
    const echo = defineTask({ name: "echo", queue, handler: async (n: number) => n });
    const slowly = defineWorkflow({
      name: "slowly",
      queue,
      input,
      handler: async (wf) => {
        seen.push(wf.now());
        const before = await wf.run(echo, wf.now());
        await wf.waitForSignal("go");
        return before;
      },
    });
    const backend = await open();
    backend.register(echo, slowly);
    const run = await backend.submit(slowly, null);
    slow = true;
    const first = await backend.startWorker();
    await expect.poll(() => seen.length, { timeout: 40_000 }).toBeGreaterThan(0);
    await pause(1_000);
    await first.stop();
    await backend.startWorker();
    await run.signal("go");
    const before = await run.output({ timeout: "40s" });
    expect(new Set(seen)).toEqual(new Set([before]));
    await backend.close();
  }, 120_000);
});
