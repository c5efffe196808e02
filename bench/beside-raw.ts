import { inLanes, percentile, seconds, type Row, type Table } from "./measure.ts";

/*
 * Compares our backend with the raw engine on the same work and the same server, in turns.
 */

const LANES = 20;

type Contender = "ours" | "raw";
type Samples = Record<Contender, number[]>;
export type Work = Record<Contender, (index: number) => Promise<unknown>>;

/** Measures each contender in each round, in random order. The first round does not count. */
async function inTurns(rounds: number, measure: (who: Contender, round: number) => Promise<number>): Promise<Samples> {
  const samples: Samples = { ours: [], raw: [] };
  for (let round = -1; round < rounds; round++) {
    for (const who of Math.random() < 0.5 ? (["ours", "raw"] as const) : (["raw", "ours"] as const)) {
      const sample = await measure(who, round);
      if (round >= 0) samples[who].push(sample);
    }
  }
  return samples;
}

/** The rate over many short rounds together: a server that shares the processor is slow for seconds at a time. */
const rate = (name: string, count: number, samples: Samples): Row => {
  const [ours, bare] = [samples.ours, samples.raw].map((times) => (count * times.length) / sum(times)) as [number, number];
  return { name, unit: "/s", ours, bare, goal: { text: "within 5 % of raw", reached: ours / bare / 0.95 } };
};

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);

const time = (name: string, { ours, raw }: Samples, at: number, allowed: number): Row => {
  const [mine, theirs] = [percentile(ours, at), percentile(raw, at)];
  return {
    name,
    unit: "ms",
    ours: mine,
    bare: theirs,
    goal: { text: `within ${Math.round(allowed * 100)} % of raw`, reached: ((1 + allowed) * theirs) / mine },
  };
};

/** Measures an engine that has both: one task, and a chain of ten. `chainMayAdd` is the share by which our chain may be slower. */
export async function besideRaw(
  title: string,
  { task, chain, chainMayAdd }: { readonly task: Work; readonly chain: Work; readonly chainMayAdd: number },
  quick: boolean,
): Promise<Table> {
  const count = 100;
  const rates = await inTurns(quick ? 2 : 40, (who) => seconds(() => inLanes(count, LANES, task[who])));
  const trips = await inTurns(quick ? 50 : 200, async (who, round) => 1_000 * (await seconds(() => task[who](round))));
  const chains = await inTurns(quick ? 8 : 40, async (who, round) => 1_000 * (await seconds(() => chain[who](round))));
  const rows = [
    rate(`tasks from submit to result, ${LANES} at a time`, count, rates),
    time("submit to result, p50", trips, 0.5, 0.05),
    time("submit to result, p99", trips, 0.99, 0.05),
    time("chain of 10, p50", chains, 0.5, chainMayAdd),
  ];
  return { title, columns: { bare: "raw SDK" }, rows };
}
