import { conformance } from "@task-backend/conformance";
import { describe, test } from "vitest";
import { bullmqUnderTest } from "../engines/bullmq.ts";
import { reportTo } from "../engines/report.ts";
import { onEngine } from "../engines/required.ts";

onEngine("redis", "REDIS_URL", "bullmq on Redis", (url) => {
  conformance(
    { describe, test: test.concurrent },
    { ...bullmqUnderTest("bullmq on Redis", url), ...reportTo("bullmq-redis", "bullmq", "ioredis") },
  );
});
