export { bullmq, createAdapter } from "./adapter.ts";
export type { BullmqOptions } from "./options.ts";
export type { BullmqNativeOptions } from "./native.ts";
