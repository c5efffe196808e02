import type { Adapter, Feature } from "@task-backend/core/adapter";
import type { CaseContext } from "./context.ts";

/** One check of one rule. Its title starts with the rule's number. */
export interface ConformanceCase {
  readonly rule: number;
  readonly title: string;
  /** The case is skipped, with the reason, on engines that declare one of these features unsupported. */
  readonly needs: readonly Feature[];
  /** Further features that the case shows at any declared level: they work as declared, or are refused. */
  readonly shows: readonly Feature[];
  /** The time limit when nothing is slow, in milliseconds. */
  readonly timeoutMs: number;
  run(context: CaseContext): Promise<void>;
}

/** The facts about an engine that the suite needs. It reads everything else from the capabilities. */
export interface EngineUnderTest {
  /** The engine's name in titles. */
  readonly name: string;
  /** A new adapter; with `retentionMs`, one that keeps settled runs that long, separate from those of the others. */
  createAdapter(options?: { readonly retentionMs: number }): Adapter;
  /** Variables that lead worker processes to the same engine: at least `TASK_BACKEND_TYPE` and `TASK_BACKEND_URL`. */
  readonly env: Readonly<Record<string, string>>;
  /** Variables that lead a process to a place without an engine: connecting there fails. */
  readonly nowhere: Readonly<Record<string, string>>;
  /** The engine's client library and its version, for the report. */
  readonly client?: string;
  /** The file for the report, as JSON. */
  readonly report?: string;
  /** An instance that nothing else uses, with functions to make it unreachable. */
  outage(): Promise<Outage>;
  /** Other instances on the same server, each separated in another way that the adapter offers. At least one. */
  apart(): Promise<readonly Apart[]>;
}

/** An instance that must not affect the first one, nor be affected by it. */
export interface Apart {
  /** The difference to the first one: `another schema`, `another database number`. */
  readonly by: string;
  createAdapter(): Adapter;
}

export interface Outage {
  createAdapter(): Adapter;
  /** Makes the engine unreachable until `end`. */
  begin(): Promise<void>;
  end(): Promise<void>;
}

/** The test runner of the caller: `test` of vitest (or `test.concurrent`), or one like it. */
export interface Runner {
  describe(title: string, body: () => void): void;
  test(title: string, run: (context: { skip: (reason: string) => void }) => Promise<void>, timeoutMs: number): void;
}

const TIMEOUT_MS = 20_000;

interface CaseOptions {
  readonly needs?: readonly Feature[];
  readonly shows?: readonly Feature[];
  readonly timeoutMs?: number;
}

/** Makes the cases of one rule. */
export function casesOf(rule: number): (title: string, run: ConformanceCase["run"], options?: CaseOptions) => ConformanceCase {
  return (title, run, { needs = [], shows = [], timeoutMs = TIMEOUT_MS } = {}) => ({
    rule,
    title: `rule ${rule}: ${title}`,
    needs,
    shows,
    timeoutMs,
    run,
  });
}
