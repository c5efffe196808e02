import type { ErrorRecord } from "@task-backend/core/adapter";

/** The worker stops. */
export class Leaving extends Error {}

/** A tick that has to be asked again elsewhere, or later. */
export class Parked extends Error {
  constructor(
    readonly error: ErrorRecord | undefined,
    readonly delayMs: number,
  ) {
    super(error?.message);
  }
}
