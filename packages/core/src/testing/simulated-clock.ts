import { AsyncLocalStorage } from "node:async_hooks";

/** Milliseconds since 1970, by the clock of one simulated run. */
type Clock = () => number;

/** The process has one, whichever copy of the package made it: two would restore each other's `Date`. */
interface Simulated {
  readonly clocks: AsyncLocalStorage<Clock>;
  users: number;
  restore: () => void;
}

const SIMULATED = Symbol.for("task-backend.simulated-clock");
const holder = globalThis as { [SIMULATED]?: Simulated };
const simulated: Simulated = (holder[SIMULATED] ??= { clocks: new AsyncLocalStorage<Clock>(), users: 0, restore: () => {} });

/** Runs code whose `Date`, and that of everything it awaits, follows this clock. Other code of the process keeps the real `Date`. */
export function byClock<T>(clock: Clock, code: () => T): T {
  return simulated.clocks.run(clock, code);
}

/** Makes `byClock` work while the code runs. The original `Date` returns when the last of several such calls has ended. */
export async function withClocks<T>(code: () => Promise<T>): Promise<T> {
  if (simulated.users++ === 0) simulated.restore = install();
  try {
    return await code();
  } finally {
    if (--simulated.users === 0) simulated.restore();
  }
}

function install(): () => void {
  const RealDate = globalThis.Date;
  const clock = (): number | undefined => simulated.clocks.getStore()?.();
  const now = (): number => clock() ?? RealDate.now();
  const simulatedDate = new Proxy(RealDate, {
    // `Date()` without new returns a text.
    apply: () => new RealDate(now()).toString(),
    construct: (target, values, newTarget) => {
      const nowMs = values.length === 0 ? clock() : undefined;
      return Reflect.construct(target, nowMs === undefined ? values : [nowMs], newTarget) as Date;
    },
    get: (target, property, receiver) => (property === "now" ? now : (Reflect.get(target, property, receiver) as unknown)),
  });
  globalThis.Date = simulatedDate;
  return () => {
    // Fake timers that were installed later are their owner's to remove.
    if (globalThis.Date === simulatedDate) globalThis.Date = RealDate;
  };
}
