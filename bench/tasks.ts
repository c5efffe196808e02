import { chain, defineTask } from "@task-backend/core";

export const add = defineTask({ name: "add", queue: "bench", handler: async ({ a, b }: { a: number; b: number }) => a + b });
export const increment = defineTask({ name: "increment", queue: "bench", handler: async (n: number) => n + 1 });
export const chainOfTen = chain(
  "chain_of_ten",
  Array.from({ length: 10 }, () => increment),
);
