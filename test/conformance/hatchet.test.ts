import { conformance } from "@task-backend/conformance";
import { describe, test } from "vitest";
import { hatchetUnderTest } from "../engines/hatchet.ts";
import { reportTo } from "../engines/report.ts";
import { onEngine } from "../engines/required.ts";

onEngine("hatchet", "HATCHET_CLIENT_TOKEN", "hatchet", () => {
  conformance(
    { describe, test: test.concurrent },
    { ...hatchetUnderTest("hatchet"), ...reportTo("hatchet", "@hatchet-dev/typescript-sdk") },
  );
});
