import type { Adapter, Decision, JournalEntry } from "@task-backend/core/adapter";
import { deciding, submitting, working, type Saboteur } from "./sabotage-kit.ts";

const late = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** All adapters that cases have opened in this process. */
const opened = new Set<Adapter>();

/** The saboteurs of the second part's rules: users and the world. */
export const worldSaboteurs: readonly Saboteur[] = [
  {
    rule: 29,
    title: "the first queue of a worker is served late",
    wrap: (adapter) => ({
      ...adapter,
      startWorker: (request, runtime) =>
        adapter.startWorker(request, {
          ...runtime,
          execute: async (attempt) => {
            if (attempt.queue === request.queues[0]) await late(2_000);
            return runtime.execute(attempt);
          },
        }),
    }),
  },
  {
    rule: 30,
    title: "an attempt that fails takes the next one of its worker with it",
    wrap: (adapter) => {
      let spoilt: Decision | undefined;
      return deciding((decision) => {
        if (decision.do === "settle") spoilt = decision;
        return (decision.do === "complete" && spoilt) || decision;
      })(adapter);
    },
  },
  {
    rule: 31,
    title: "what cannot be stored is tried again for ever",
    wrap: deciding((decision) =>
      decision.do === "settle" && /[\0\ud800-\udfff\ufffd]|^INVALID/u.test(`${decision.error.code}${decision.error.message}`)
        ? { do: "retry", delayMs: 100, error: decision.error }
        : decision,
    ),
  },
  { rule: 32, title: "names lose their capitals on the way", wrap: submitting((run) => ({ ...run, name: run.name.toLowerCase() })) },
  {
    rule: 33,
    title: "a worker goes on after it was stopped and closed",
    wrap: (adapter) => ({
      ...adapter,
      startWorker: async (request, runtime) => ({
        ...(await adapter.startWorker(request, runtime)),
        healthy: () => true,
        stop: async () => {},
      }),
      close: async () => {},
    }),
  },
  {
    rule: 34,
    title: "what is no run is waited for without end",
    wrap: (adapter) => ({ ...adapter, wait: async (id, signal) => (await adapter.wait(id, signal)) ?? new Promise(() => {}) }),
  },
  {
    rule: 35,
    title: "each instance answers for the runs of all",
    wrap: (adapter) => ({
      ...adapter,
      connect: async (signal) => {
        opened.add(adapter);
        return adapter.connect(signal);
      },
      get: async (id) => {
        for (const one of [adapter, ...opened]) {
          const record = await one.get(id).catch(() => undefined);
          if (record) return record;
        }
        return undefined;
      },
    }),
  },
  {
    rule: 36,
    title: "signals overtake the deadlines that they came after",
    wrap: working((runtime) => ({
      advance: (tick) => runtime.advance({ ...tick, entries: signalsBefore(tick.entries, tick.seen - tick.from) }),
    })),
  },
  { rule: 37, title: "nobody asks for the tick of a workflow that went on by itself", wrap: working(() => ({ onStray: () => {} })) },
];

/** Moves signals before all other entries that no tick has acted on. */
function signalsBefore(entries: readonly JournalEntry[], acted: number): readonly JournalEntry[] {
  const [old, fresh] = [entries.slice(0, Math.max(acted, 0)), entries.slice(Math.max(acted, 0))];
  const isSignal = ({ type }: JournalEntry): boolean => type === "signal";
  return [...old, ...fresh.filter(isSignal), ...fresh.filter((entry) => !isSignal(entry))];
}
