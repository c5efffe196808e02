import { setTimeout as sleep } from "node:timers/promises";
import { CaseContext, type WorkerProcess } from "@task-backend/conformance";
import { expect, test } from "vitest";
import { listener } from "../packages/conformance/src/fixtures.ts";
import { hatchetUnderTest } from "./engines/hatchet.ts";
import { onEngine } from "./engines/required.ts";

/*
 * Signals to workflows whose workers are killed at random: Hatchet's own waits hung in this situation when they looked for earlier
 * events. SIGNAL_RUNS=300 makes a long run.
 */

const RUNS = Number(process.env["SIGNAL_RUNS"] ?? 20);
const SIGNALS = 3;
const WORKERS = 3;
const KILL_EVERY_MS = 8_000;

onEngine("hatchet", "HATCHET_CLIENT_TOKEN", "hatchet: signals under kills", () => {
  test(
    `${RUNS} workflows with ${SIGNALS} signals each, under random kills: none wrong, none hung`,
    { timeout: 600_000 + RUNS * 3_000, retry: 1 },
    async () => {
      const context = new CaseContext(hatchetUnderTest("hatchet"));
      const workers: WorkerProcess[] = [];
      let killing = true;
      let killed = 0;
      const kills = (async (): Promise<void> => {
        while (killing) {
          while (workers.length < WORKERS) workers.push(await context.spawnWorker());
          await sleep(KILL_EVERY_MS);
          if (!killing) break;
          const [worker] = workers.splice(Math.floor(Math.random() * workers.length), 1);
          worker?.kill("SIGKILL");
          killed++;
        }
      })();
      try {
        const backend = await context.backend();
        const one = async (index: number): Promise<void> => {
          const input = { file: context.effects, queue: context.queue, signals: SIGNALS };
          const run = await backend.submit(listener, input, { queue: context.queue });
          for (let n = 0; n < SIGNALS; n++) {
            await run.signal("word", `${index}.${n}`, { dedupeId: `${n}` });
            await sleep(Math.random() * 3_000);
          }
          const expected = Array.from({ length: SIGNALS }, (_, n) => [`${index}.${n}`, `after ${n}`]).flat();
          expect(await run.output({ timeout: "5m" })).toEqual(expected);
        };
        let next = 0;
        const lane = async (): Promise<void> => {
          // The lanes go on until at least one worker was killed.
          while (next < RUNS || killed === 0) await one(next++);
        };
        await Promise.all(Array.from({ length: 20 }, lane));
      } finally {
        killing = false;
        await kills.catch(() => {});
        await context.close();
      }
    },
  );
});
