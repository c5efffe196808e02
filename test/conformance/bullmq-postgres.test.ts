import { conformance } from "@task-backend/conformance";
import { describe, test } from "vitest";
import { bullmqUnderTest } from "../engines/bullmq.ts";
import { reportTo } from "../engines/report.ts";
import { onEngine } from "../engines/required.ts";

onEngine("postgres", "POSTGRES_URL", "bullmq on PostgreSQL", (url) => {
  conformance(
    { describe, test: test.concurrent },
    { ...bullmqUnderTest("bullmq on PostgreSQL", url), ...reportTo("bullmq-postgres", "bullmq", "pg") },
  );
});
