import { describe, test } from "vitest";

/**
 * Runs tests that need a server. `npm test` starts the server and puts its URL into the variable; without one the tests are skipped,
 * with the reason.
 */
export function onEngine(engine: string, variable: string, title: string, body: (url: string) => void): void {
  const url = process.env[variable];
  if (url) return body(url);
  const missing = JSON.parse(process.env["TASK_BACKEND_MISSING_ENGINES"] ?? "{}") as Record<string, string>;
  describe(title, () => {
    test("needs its engine", ({ skip }) => skip(`${engine}: ${missing[engine] ?? `${variable} is not set; npm test starts one`}`));
  });
}
