import { conformance } from "@task-backend/conformance";
import { describe, test } from "vitest";
import { reportTo } from "../engines/report.ts";
import { sqliteUnderTest } from "../engines/sqlite.ts";

conformance({ describe, test: test.concurrent }, { ...sqliteUnderTest("sqlite"), ...reportTo("sqlite", "@photostructure/sqlite") });
