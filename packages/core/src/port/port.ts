/*
 * The adapter port: all that an engine's package implements, and all that it is given.
 *
 * Core has already validated, filled in defaults and refused what the capabilities do not cover before it calls an
 * adapter; every value here is plain and serialisable. Outcomes are decisions that the engine carries out.
 */

export * from "./adapter.ts";
export * from "./capabilities.ts";
export * from "./runs.ts";
export * from "./workers.ts";
export * from "./workflows.ts";
