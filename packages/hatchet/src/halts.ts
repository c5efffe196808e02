import type { ErrorRecord } from "@task-backend/core/adapter";

/** The run leaves this worker, because the worker stops. */
export class Leaving extends Error {}

/** The run needs a tick later, or on another worker. */
export class Parked extends Error {
  constructor(
    readonly error: ErrorRecord | undefined,
    readonly delayMs: number,
  ) {
    super(error?.message);
  }
}
