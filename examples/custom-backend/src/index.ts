export { createAdapter, postgresQueue } from "./adapter.ts";
export type { PostgresQueueOptions } from "./options.ts";
