import type { Adapter, Attempt, Command, Decision, RunRequest, Tick, TickResult, WorkerRuntime } from "@task-backend/core/adapter";

/** An adapter that breaks exactly one rule. The suite must fail on it in that rule's cases, or the rule is not tested. */
export interface Saboteur {
  readonly rule: number;
  /** The behaviour that breaks the rule. */
  readonly title: string;
  wrap(adapter: Adapter): Adapter;
}

type Requests = (run: RunRequest) => RunRequest;

/** Changes each request on its way to the engine. */
export const submitting =
  (change: Requests) =>
  (adapter: Adapter): Adapter => ({ ...adapter, submit: (runs) => adapter.submit(runs.map(change)) });

/** Changes core's side of a worker, as the adapter is given it. */
export const working =
  (change: (runtime: WorkerRuntime) => Partial<WorkerRuntime>) =>
  (adapter: Adapter): Adapter => ({
    ...adapter,
    startWorker: (request, runtime) => adapter.startWorker(request, { ...runtime, ...change(runtime) }),
  });

export const deciding = (change: (decision: Decision, attempt: Attempt) => Decision) =>
  working((runtime) => ({ execute: async (attempt) => change(await runtime.execute(attempt), attempt) }));

export const answering = (change: (result: TickResult, tick: Tick) => TickResult) =>
  working((runtime) => ({ advance: async (tick) => change(await runtime.advance(tick), tick) }));

export const commanding = (change: (command: Command) => Command) =>
  answering((result) => (result.do === "wait" ? { ...result, commands: result.commands.map(change) } : result));

export const without =
  <K extends keyof RunRequest>(key: K): Requests =>
  (run) => {
    const { [key]: _, ...rest } = run;
    return rest as RunRequest;
  };

export const failInstead = (code: string) =>
  answering((result) =>
    result.do === "retry" && result.error.code === code ? { do: "settle", status: "failed", error: result.error } : result,
  );
