import { execFile } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

interface Ended {
  readonly code: number | string | null | undefined;
  readonly out: string;
  readonly err: string;
}

// The folder is under node_modules, so that it resolves the built packages, like an application.
const folder = mkdtempSync(join(import.meta.dirname, "../node_modules/.process-guard-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const program = join(folder, "program.mjs");
copyFileSync(join(import.meta.dirname, "fixtures/process-guard.mjs"), program);

const run = (what: string): Promise<Ended> =>
  new Promise((resolve) => {
    execFile(process.execPath, [program, what], { timeout: 60_000 }, (error, out, err) =>
      resolve({ code: error ? error.code : 0, out, err }),
    );
  });

describe("an application with an embedded worker", () => {
  test(
    "does not end of what its handlers forget or throw beside their promises; each costs its own attempt",
    { timeout: 90_000 },
    async () => {
      const { code, out, err } = await run("own");
      expect(err).toBe("");
      expect(JSON.parse(out)).toEqual({
        outcomes: {
          forgets: "forgets",
          forgetsWithoutText: "forgetsWithoutText",
          throwsInTimer: '"misbehaves" failed: in a timer',
          throwsInTick: '"misbehaves" failed: null',
          late: '"late" was cancelled.',
          innocent: "done",
        },
        named: true,
        left: 0,
      });
      expect(code).toBe(0);
    },
  );

  test("ends of what is not theirs, as it would without a worker", { timeout: 90_000 }, async () => {
    for (const what of ["rejects", "throws"]) {
      const { code, out, err } = await run(what);
      expect({ what, code, out }).toEqual({ what, code: 1, out: "" });
      expect(err).toContain("Error: foreign");
    }
  });

  test("tells the application's own listener, with Node's origin", { timeout: 90_000 }, async () => {
    expect(await run("seen")).toMatchObject({ code: 0, out: "seen foreign unhandledRejection\nalive\n" });
  });
});
