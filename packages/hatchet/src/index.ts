export { createAdapter, hatchet } from "./adapter.ts";
export type { HatchetNativeOptions } from "./native.ts";
export type { HatchetOptions } from "./options.ts";
