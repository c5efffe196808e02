import { conformance } from "@task-backend/conformance";
import { describe, test } from "vitest";
import { customBackendUnderTest } from "../engines/custom-backend.ts";
import { onEngine } from "../engines/required.ts";

onEngine("postgres", "POSTGRES_URL", "custom-backend", (url) => {
  conformance({ describe, test: test.concurrent }, customBackendUnderTest("custom-backend", url));
});
