/** Tools for tests of workflows. */
export { crashTest, type CrashTestOptions, type CrashTestReport } from "./testing/crash-test.ts";
export { CrashTestError } from "./testing/crash-test-error.ts";
