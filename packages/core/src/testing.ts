/** For tests of workflows. */
export { crashTest, CrashTestError, type CrashTestOptions, type CrashTestReport } from "./testing/crash-test.ts";
