/*
 * The adapter port: everything that an engine's package implements, and everything that it is given.
 *
 * Before core calls an adapter it has validated the values, filled in defaults and refused what the capabilities do not cover.
 * Every value here is plain and serialisable. Outcomes are decisions that the engine carries out.
 */

export * from "./adapter.ts";
export * from "./capabilities.ts";
export * from "./runs.ts";
export * from "./workers.ts";
export * from "./workflows.ts";
