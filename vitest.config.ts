import { defineConfig } from "vitest/config";

const sources = { conditions: ["@task-backend/source"] };
/** The suite on servers with few connections, or of several services: one after the other, fewer cases at a time, and one more try for what a slow server was late with. */
const HEAVY = [
  { name: "custom-backend", file: "test/conformance/custom-backend.test.ts", maxConcurrency: 8, retry: 0 },
  { name: "temporal", file: "test/conformance/temporal.test.ts", maxConcurrency: 8, retry: 1 },
  { name: "hatchet", file: "test/conformance/hatchet.test.ts", maxConcurrency: 4, retry: 1 },
] as const;
/** They install and compile: after what goes by the clock. */
const OUTSIDE = ["test/packages.test.ts", "test/docs.test.ts"];
const TESTS = ["packages/*/src/**/*.test.ts", "test/**/*.test.ts"];

export default defineConfig({
  resolve: sources,
  ssr: { resolve: { ...sources, externalConditions: sources.conditions } },
  test: {
    // A pending query at teardown aborts a pool of threads.
    pool: "forks",
    testTimeout: 20_000,
    projects: [
      {
        extends: true,
        test: {
          name: "tests",
          include: TESTS,
          exclude: ["**/node_modules/**", ...OUTSIDE, ...HEAVY.map(({ file }) => file)],
          maxConcurrency: 12,
        },
      },
      {
        extends: true,
        test: {
          name: "types",
          include: [],
          typecheck: { enabled: true, only: true, include: ["packages/*/src/**/*.test-d.ts"], tsconfig: "tsconfig.json" },
        },
      },
      ...HEAVY.map(({ name, file, maxConcurrency, retry }, index) => ({
        extends: true as const,
        test: { name, include: [file], maxConcurrency, retry, sequence: { groupOrder: index + 1 } },
      })),
      { extends: true, test: { name: "outside", include: OUTSIDE, sequence: { groupOrder: HEAVY.length + 1 } } },
    ],
  },
});
