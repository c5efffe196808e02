import { conformance } from "@task-backend/conformance";
import { describe, test } from "vitest";
import { sqliteUnderTest } from "../engines/sqlite.ts";

conformance({ describe, test: test.concurrent }, sqliteUnderTest("sqlite"));
