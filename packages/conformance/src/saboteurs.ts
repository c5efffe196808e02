import type { Saboteur } from "./sabotage-kit.ts";
import { engineSaboteurs } from "./saboteurs-engine.ts";
import { worldSaboteurs } from "./saboteurs-world.ts";

export type { Saboteur } from "./sabotage-kit.ts";

/** One saboteur for each rule. */
export const saboteurs: readonly Saboteur[] = [...engineSaboteurs, ...worldSaboteurs];
