import { setTimeout as pause } from "node:timers/promises";
import { chain, defineTask } from "@task-backend/core";

export const add = defineTask({ name: "add", queue: "bench", handler: async ({ a, b }: { a: number; b: number }) => a + b });
export const increment = defineTask({ name: "increment", queue: "bench", handler: async (n: number) => n + 1 });
export const echo = defineTask({ name: "echo", queue: "bench", handler: async ({ data }: { data: string }) => data });
export const nap = defineTask({ name: "nap", queue: "naps", handler: async ({ ms }: { ms: number }) => pause(ms, ms) });

const chainOf = (name: string, length: number) =>
  chain(
    name,
    Array.from({ length }, () => increment),
  );
export const chainOfOne = chainOf("chain_of_one", 1);
export const chainOfTen = chainOf("chain_of_ten", 10);
export const chainOfHundred = chainOf("chain_of_hundred", 100);
/** Chains by their length. */
export const chains = new Map([
  [1, chainOfOne],
  [10, chainOfTen],
  [100, chainOfHundred],
]);
