import { cases, catchSaboteur, saboteurs } from "@task-backend/conformance";
import { describe, expect, test } from "vitest";
import { sqliteUnderTest } from "./engines/sqlite.ts";

// A rule is not tested if its saboteur passes. All saboteurs run over SQLite, which needs nothing installed.
describe("saboteurs", () => {
  const engine = sqliteUnderTest("sqlite");

  test("there is one for each rule that has cases", () => {
    expect(saboteurs.map(({ rule }) => rule)).toEqual([...new Set(cases.map(({ rule }) => rule))]);
    expect(saboteurs).toHaveLength(37);
  });

  for (const saboteur of saboteurs) {
    test.concurrent(
      `rule ${saboteur.rule}: caught: ${saboteur.title}`,
      async () => {
        const caught = await catchSaboteur(engine, saboteur, cases);
        expect(caught, "no case of the rule failed").toBeDefined();
        if (process.env["SHOW_CAUGHT"]) console.log(caught);
      },
      120_000,
    );
  }
});
