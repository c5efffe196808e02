import { fileURLToPath } from "node:url";
import { DefaultLogger, NativeConnection, Runtime, Worker } from "@temporalio/worker";

/** A worker process of the raw SDK. Its arguments are an address and a task queue. */
const [address = "", taskQueue = ""] = process.argv.slice(2);
Runtime.install({ logger: new DefaultLogger("ERROR") });
const worker = await Worker.create({
  connection: await NativeConnection.connect({ address }),
  taskQueue,
  workflowsPath: fileURLToPath(new URL("raw-temporal-workflow.ts", import.meta.url)),
  activities: { add: async ({ a, b }: { a: number; b: number }) => a + b, increment: async (n: number) => n + 1 },
  maxConcurrentActivityTaskExecutions: 50,
});
console.log("raw worker ready");
await worker.run();
process.exit(0);
