import { Random } from "./random.ts";

/** One fault: at what time of the run, to which of the worker places, for how long. */
export interface Fault {
  readonly atMs: number;
  readonly kind: FaultKind;
  readonly place: number;
  readonly forMs: number;
}

export type FaultKind = "kill" | "freeze" | "drop" | "slow" | "cut" | "restart" | "clock";

interface Choice {
  readonly kind: FaultKind;
  readonly weight: number;
  readonly forMs: readonly [from: number, to: number];
}

/** Everything follows from the seed. `freezeMs` is more than it takes until a frozen worker's runs are another's. */
export function planFaults(seed: number, lengthMs: number, places: number, hasRoads: boolean, freezeMs: number): readonly Fault[] {
  const random = new Random(seed);
  const choices: readonly Choice[] = [
    { kind: "kill", weight: 6, forMs: [0, 1_500] },
    { kind: "freeze", weight: 3, forMs: [freezeMs, freezeMs + 2_000] },
    { kind: "clock", weight: 1, forMs: [2_000, 6_000] },
    { kind: "restart", weight: 1, forMs: [0, 0] },
    ...(hasRoads
      ? ([
          { kind: "drop", weight: 4, forMs: [0, 0] },
          { kind: "slow", weight: 3, forMs: [2_000, 8_000] },
          { kind: "cut", weight: 2, forMs: [500, 6_000] },
        ] as const)
      : []),
  ];
  const plan: Fault[] = [];
  for (let atMs = 2_000; atMs < lengthMs; atMs += random.between(500, 4_000)) {
    const { kind, forMs } = random.pick(choices);
    // The last place is the producer's: nobody starts that one again.
    const place = Math.floor(random.next() * (kind === "drop" || kind === "slow" || kind === "cut" ? places + 1 : places));
    plan.push({ atMs, kind, place, forMs: random.between(...forMs) });
  }
  return plan;
}
