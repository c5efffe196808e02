import { UnsupportedCapabilityError, type DefinitionSpec, type RunRequest } from "@task-backend/core/adapter";
import type { NativeOptions } from "@task-backend/core";
import type { CreateTaskWorkflowOpts } from "@hatchet-dev/typescript-sdk/v1/declaration.js";

/**
 * Hatchet's own options for one definition, passed through to its registration. Options that core decides (retries, backoff,
 * timeouts, slots) are excluded. The `duration` of a rate limit is the number of the SDK's `RateLimitDuration`.
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

/**
 * Refuses native options of a submission: Hatchet stores them with the name, not with the run, and would ignore them.
 * @throws UnsupportedCapabilityError
 */
export function refuseNativeOfSubmission({ name, native, definition }: RunRequest): void {
  const { hatchet } = (native ?? {}) as NativeOptions;
  if (hatchet === undefined || (definition && hatchet === (definition.native as NativeOptions | undefined)?.hatchet)) return;
  throw new UnsupportedCapabilityError(
    "hatchet",
    "native",
    `"${name}" was submitted with native.hatchet, which Hatchet takes with a definition only; give it to defineTask or defineWorkflow`,
  );
}
