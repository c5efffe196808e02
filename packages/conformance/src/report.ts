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
  /** Of a skip. */
  readonly reason?: string;
  readonly ms: number;
}

export interface FeatureReport {
  readonly declared: Level;
  /**
   * - `as declared`: cases that use it passed, and none failed; or, where it is unsupported, cases that it is refused
   * - `not as declared`: such a case failed
   * - `not seen`: none of them has run
   */
  readonly observed: "as declared" | "not as declared" | "not seen";
}

/** What a run of the suite on one engine showed. Written as JSON. */
export interface ConformanceReport {
  readonly format: 1;
  /** As the suite was given it. */
  readonly name: string;
  readonly engine: string;
  /** Of the server. */
  readonly server: string;
  /** Of the library that speaks to it. */
  readonly client: string;
  readonly node: string;
  readonly finishedAt: string;
  readonly limits: Capabilities["limits"];
  readonly features: Readonly<Record<Feature, FeatureReport>>;
  /** Fewer than `cases` when only some were run. */
  readonly results: readonly CaseReport[];
  readonly cases: number;
}

/** Written anew after each case, so that a run that is cut short leaves what it has seen. */
export class ReportWriter {
  readonly #engine: EngineUnderTest;
  readonly #file: string;
  readonly #cases: readonly ConformanceCase[];
  readonly #results = new Map<string, CaseReport>();
  /** By title: how often the case was begun. */
  readonly #begun = new Map<string, number>();
  #capabilities: Promise<Capabilities> | undefined;

  constructor(engine: EngineUnderTest, file: string, cases: readonly ConformanceCase[]) {
    this.#engine = engine;
    this.#file = file;
    this.#cases = cases;
  }

  /** Answers with the number of the try, for `add`. */
  begin({ title }: ConformanceCase): number {
    const tries = (this.#begun.get(title) ?? 0) + 1;
    this.#begun.set(title, tries);
    return tries;
  }

  /** A case that is tried again replaces what was seen of it before; what an earlier try still says after that does not count. */
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
