import { TaskBackendError } from "../values/errors.ts";

/** The workflow gave another result after a crash, or asked for something else; or the test itself lacks something. */
export class CrashTestError extends TaskBackendError {
  static override readonly kind = "CrashTestError";
  /** 0 when it is the same for every seed. */
  readonly seed: number;
  constructor(seed: number, message: string, options?: { cause?: unknown }) {
    super("CRASH_TEST", message, options);
    this.seed = seed;
  }
}
