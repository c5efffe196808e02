import { TaskBackendError } from "../values/errors.ts";

/** The workflow had another result or made other calls after a crash; or the test itself lacks something. */
export class CrashTestError extends TaskBackendError {
  static override readonly kind = "CrashTestError";
  /** The seed that failed; 0 when every seed would. */
  readonly seed: number;
  constructor(seed: number, message: string, options?: { cause?: unknown }) {
    super("CRASH_TEST", message, options);
    this.seed = seed;
  }
}
