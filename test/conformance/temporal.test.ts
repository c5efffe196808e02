import { conformance } from "@task-backend/conformance";
import { describe, test } from "vitest";
import { reportTo } from "../engines/report.ts";
import { onEngine } from "../engines/required.ts";
import { temporalUnderTest } from "../engines/temporal.ts";

onEngine("temporal", "TEMPORAL_ADDRESS", "temporal", (address) => {
  conformance(
    { describe, test: test.concurrent },
    { ...temporalUnderTest("temporal", address), ...reportTo("temporal", "@temporalio/worker") },
  );
});
