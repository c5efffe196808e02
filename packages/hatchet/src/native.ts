import type { NativeOptions } from "@task-backend/core";
import type { CreateTaskWorkflowOpts } from "@hatchet-dev/typescript-sdk/v1/declaration.js";
import type { DefinitionSpec } from "@task-backend/core/adapter";

/**
 * Hatchet's own options for one definition, passed through to its registration. What core decides (retries, backoff,
 * timeouts, slots) is not among them.
 */
export type HatchetNativeOptions = Pick<CreateTaskWorkflowOpts, "description" | "concurrency" | "rateLimits">;

declare module "@task-backend/core" {
  interface NativeOptions {
    hatchet?: HatchetNativeOptions;
  }
}

export function nativeOf({ native }: Pick<DefinitionSpec, "native">): HatchetNativeOptions {
  return (native as NativeOptions | undefined)?.hatchet ?? {};
}
