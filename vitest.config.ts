import { defineConfig } from "vitest/config";

const sources = { conditions: ["@task-backend/source"] };

export default defineConfig({
  resolve: sources,
  ssr: { resolve: { ...sources, externalConditions: sources.conditions } },
  test: {
    // A pending query at teardown aborts a pool of threads.
    pool: "forks",
    include: ["packages/*/src/**/*.test.ts", "test/**/*.test.ts"],
    maxConcurrency: 24,
    testTimeout: 20_000,
    typecheck: { include: ["packages/*/src/**/*.test-d.ts"], tsconfig: "tsconfig.json" },
  },
});
