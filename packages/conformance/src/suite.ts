import type { Adapter, Feature } from "@task-backend/core/adapter";
import type { CaseContext } from "./context.ts";

/** One check of one rule. Its title begins with the rule's number. */
export interface ConformanceCase {
  readonly rule: number;
  readonly title: string;
  /** Skipped, with the reason, on engines that declare one of these unsupported. */
  readonly needs: readonly Feature[];
  /** What it shows beside those, at whatever level the engine declares: that it works as declared, or is refused. */
  readonly shows: readonly Feature[];
  /** How long it may take when nothing is slow, in milliseconds. */
  readonly timeoutMs: number;
  run(context: CaseContext): Promise<void>;
}

/** What the suite needs to know of an engine. Everything else it reads from the capabilities. */
export interface EngineUnderTest {
  /** Shown in titles. */
  readonly name: string;
  /** A new adapter; with `retentionMs`, one whose settled runs are kept that long, apart from those of the others. */
  createAdapter(options?: { readonly retentionMs: number }): Adapter;
  /** Variables that lead worker processes to the same engine: `TASK_BACKEND_TYPE` and `TASK_BACKEND_URL` at least. */
  readonly env: Readonly<Record<string, string>>;
  /** Variables that lead a process to a place where no engine is: connecting there fails. */
  readonly nowhere: Readonly<Record<string, string>>;
  /** The library that speaks to the engine and its version, for the report. */
  readonly client?: string;
  /** The file that the report is written to, as JSON. */
  readonly report?: string;
  /** An instance that nothing else uses, with the means to make it unreachable. */
  outage(): Promise<Outage>;
  /** Other instances on the same server, each set apart in another way that the adapter offers. At least one. */
  apart(): Promise<readonly Apart[]>;
}

/** An instance that must not affect the first one, nor be affected by it. */
export interface Apart {
  /** What sets it apart: `another schema`, `another database number`. */
  readonly by: string;
  createAdapter(): Adapter;
}

export interface Outage {
  createAdapter(): Adapter;
  /** From now on no call reaches the engine. */
  begin(): Promise<void>;
  end(): Promise<void>;
}

/** The test runner, given from outside: `test` of vitest (or `test.concurrent`), or one like it. */
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
