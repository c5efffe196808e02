import { rawWorker } from "./raw-bullmq.ts";

/** A worker process of raw BullMQ. Its arguments are a URL and queues. */
const [url = "", ...queues] = process.argv.slice(2);
const workers = queues.map((queue) => rawWorker(url, queue, 50));
process.once("SIGTERM", () => void Promise.all(workers.map((worker) => worker.close())).then(() => process.exit(0)));
await Promise.all(workers.map((worker) => worker.waitUntilReady()));
console.log("raw worker ready");
