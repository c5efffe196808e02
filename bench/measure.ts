/** One line of the table: a measurement, the figure of each contender, and our goal. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly bare?: number;
  readonly peer?: number;
  /** Our goal in words; it is reached when `reached` is 1 or more. */
  readonly goal?: { readonly text: string; readonly reached: number };
}

export interface Table {
  readonly title: string;
  /** The meaning of `bare` and `peer` here. */
  readonly columns: { readonly bare: string; readonly peer?: string };
  readonly rows: readonly Row[];
}

export interface BenchOptions {
  readonly quick: boolean;
  /** SQLite only. Default: both. */
  readonly synchronous?: string | undefined;
}

export type Bench = (options: BenchOptions) => Promise<Table[]>;

export function median(numbers: readonly number[]): number {
  return percentile(numbers, 0.5);
}

export function percentile(numbers: readonly number[], at: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * at))] ?? Number.NaN;
}

export async function seconds(work: () => unknown): Promise<number> {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1_000;
}

/** Calls `work` for each number below `count`, `lanes` at a time. */
export async function inLanes(count: number, lanes: number, work: (index: number) => Promise<unknown>): Promise<void> {
  let index = 0;
  const lane = async (): Promise<void> => {
    while (index < count) await work(index++);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

export function round(value: number): number {
  return Number(value.toPrecision(value >= 1_000 ? 4 : 3));
}
