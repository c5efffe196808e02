export { createAdapter, sqlite } from "./adapter.ts";
export type { SqliteOptions } from "./options.ts";
