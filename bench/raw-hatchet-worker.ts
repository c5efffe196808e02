import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";

/** A worker process of the raw SDK. Its argument is the suffix of its names. */
const [suffix = ""] = process.argv.slice(2);
const silent = (): void => {};
const logger = () => ({ debug: silent, info: silent, green: silent, warn: silent, error: silent, util: silent });
const client = HatchetClient.init({ logger, log_level: "OFF" });
const add = client.task({ name: `raw-add-${suffix}`, fn: async ({ a, b }: { a: number; b: number }) => ({ sum: a + b }) });
const increment = client.task({ name: `raw-increment-${suffix}`, fn: async ({ n }: { n: number }) => ({ n: n + 1 }) });
/** The chain as a user of Hatchet would write it by hand. */
const chain = client.durableTask({
  name: `raw-chain-${suffix}`,
  executionTimeout: "5m",
  fn: async (input: { n: number }, context) => {
    let result = input;
    for (let step = 0; step < 10; step++) result = await context.spawnChild(increment, result);
    return result;
  },
});
const worker = await client.worker(`raw-${suffix}`, { workflows: [add, increment, chain], slots: 50, durableSlots: 100 });
void worker.start();
await worker.waitUntilReady();
console.log("raw worker ready");
