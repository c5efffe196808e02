import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { FEATURES, type Capabilities, type Feature, type Level } from "@task-backend/core/adapter";
import { CaseContext } from "./context.ts";
import type { ConformanceCase, EngineUnderTest } from "./suite.ts";

export type Outcome = "passed" | "failed" | "skipped";

export interface CaseReport {
  readonly rule: number;
  readonly title: string;
  readonly outcome: Outcome;
  /** Why it was skipped. */
  readonly reason?: string;
  readonly ms: number;
}

export interface FeatureReport {
  readonly declared: Level;
  /**
   * - `as declared`: cases that use it passed, and none failed; or, if it is unsupported, cases of its refusal did
   * - `not as declared`: such a case failed
   * - `not seen`: no such case has run
   */
  readonly observed: "as declared" | "not as declared" | "not seen";
}

/** The report of a run of the suite on one engine. Written as JSON. */
export interface ConformanceReport {
  readonly format: 1;
  /** The engine's name, as given to the suite. */
  readonly name: string;
  readonly engine: string;
  /** The server's version. */
  readonly server: string;
  /** The client library and its version. */
  readonly client: string;
  readonly node: string;
  readonly finishedAt: string;
  readonly limits: Capabilities["limits"];
  readonly features: Readonly<Record<Feature, FeatureReport>>;
  /** There are fewer than `cases` when only some were run. */
  readonly results: readonly CaseReport[];
  readonly cases: number;
}

/** Writes the report after each case, so that an interrupted run leaves the results so far. */
export class ReportWriter {
  readonly #engine: EngineUnderTest;
  readonly #file: string;
  readonly #cases: readonly ConformanceCase[];
  readonly #results = new Map<string, CaseReport>();
  /** How often each case was started, by title. */
  readonly #begun = new Map<string, number>();
  #capabilities: Promise<Capabilities> | undefined;

  constructor(engine: EngineUnderTest, file: string, cases: readonly ConformanceCase[]) {
    this.#engine = engine;
    this.#file = file;
    this.#cases = cases;
  }

  /** Starts a try of a case. Returns the number of the try, for `add`. */
  begin({ title }: ConformanceCase): number {
    const tries = (this.#begun.get(title) ?? 0) + 1;
    this.#begun.set(title, tries);
    return tries;
  }

  /** Adds the result of a case. A new try replaces earlier results, and late results of earlier tries are ignored. */
  async add(one: ConformanceCase, tried: number, outcome: Outcome, ms: number, reason?: string): Promise<void> {
    const { rule, title } = one;
    if (tried !== this.#begun.get(title)) return;
    this.#results.set(title, { rule, title, outcome, ...(reason !== undefined && { reason }), ms: Math.round(ms) });
    this.#capabilities ??= this.#ask();
    const report = toReport(this.#engine, await this.#capabilities, this.#cases, this.#results);
    mkdirSync(dirname(this.#file), { recursive: true });
    writeFileSync(`${this.#file}.part`, `${JSON.stringify(report, null, 2)}\n`);
    renameSync(`${this.#file}.part`, this.#file);
  }

  async #ask(): Promise<Capabilities> {
    const context = new CaseContext(this.#engine);
    try {
      return await context.capabilities();
    } finally {
      await context.close();
    }
  }
}

function toReport(
  { name, client = "" }: EngineUnderTest,
  { engine, version, features, limits }: Capabilities,
  cases: readonly ConformanceCase[],
  results: ReadonlyMap<string, CaseReport>,
): ConformanceReport {
  const observed = (feature: Feature): FeatureReport["observed"] => {
    const refused = features[feature] === "unsupported";
    const seen = cases
      .filter((one) => one.shows.includes(feature) || (!refused && one.needs.includes(feature)))
      .flatMap(({ title }) => results.get(title) ?? [])
      .filter(({ outcome }) => outcome !== "skipped");
    if (seen.length === 0) return "not seen";
    return seen.every(({ outcome }) => outcome === "passed") ? "as declared" : "not as declared";
  };
  return {
    format: 1,
    name,
    engine,
    server: version,
    client,
    node: process.version,
    finishedAt: new Date().toISOString(),
    limits,
    features: Object.fromEntries(
      FEATURES.map((feature) => [feature, { declared: features[feature], observed: observed(feature) }]),
    ) as ConformanceReport["features"],
    results: cases.flatMap(({ title }) => results.get(title) ?? []),
    cases: cases.length,
  };
}
