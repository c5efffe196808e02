export { createAdapter, temporal } from "./adapter.ts";
export type { TemporalNativeOptions } from "./native.ts";
export type { TemporalOptions } from "./options.ts";
