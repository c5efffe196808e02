import { proxyActivities } from "@temporalio/workflow";

const { increment } = proxyActivities<{ increment(n: number): Promise<number> }>({ startToCloseTimeout: "1m" });

/** The chain as a user of Temporal would write it by hand. */
export async function rawChainOfTen(n: number): Promise<number> {
  let result = n;
  for (let step = 0; step < 10; step++) result = await increment(result);
  return result;
}
