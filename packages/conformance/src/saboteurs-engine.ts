import type { JournalEntry, Json, RunRecord } from "@task-backend/core/adapter";
import { answering, commanding, deciding, failInstead, submitting, without, working, type Saboteur } from "./sabotage-kit.ts";

/** The saboteurs of the first part's rules: tasks and workflows. */
export const engineSaboteurs: readonly Saboteur[] = [
  {
    rule: 1,
    title: "submit answers before the engine has accepted the run",
    wrap: (adapter) => ({
      ...adapter,
      submit: async (runs) => {
        setTimeout(() => void adapter.submit(runs).catch(() => {}), 300);
        return runs.map((_, index) => ({ id: `not-yet-${Date.now()}-${index}`, deduplicated: false }));
      },
    }),
  },
  {
    rule: 2,
    title: "a start that was lost is not charged",
    wrap: working((runtime) => ({ execute: (attempt) => runtime.execute(attempt.previousError ? attempt : { ...attempt, attempt: 1 }) })),
  },
  {
    rule: 3,
    title: "refused input is tried again",
    wrap: deciding((decision) =>
      decision.do === "settle" && decision.error.code === "INVALID_INPUT" ? { do: "retry", delayMs: 1, error: decision.error } : decision,
    ),
  },
  {
    rule: 4,
    title: "retries come at once",
    wrap: deciding((decision) => (decision.do === "retry" ? { ...decision, delayMs: 0 } : decision)),
  },
  {
    rule: 5,
    title: "a run out of time settles failed",
    wrap: deciding((decision) =>
      decision.do === "settle" && decision.status === "timed_out" ? { ...decision, status: "failed" } : decision,
    ),
  },
  { rule: 6, title: "cancel is accepted and forgotten", wrap: (adapter) => ({ ...adapter, cancel: async () => "requested" }) },
  { rule: 7, title: "every run has the same priority", wrap: submitting((run) => ({ ...run, priority: "normal" })) },
  { rule: 8, title: "delays are dropped", wrap: submitting(without("runAtMs")) },
  { rule: 9, title: "idempotency keys are dropped", wrap: submitting(without("idempotencyKey")) },
  {
    rule: 10,
    title: "workers serve every queue that was ever seen",
    wrap: (adapter) => ({
      ...adapter,
      submit: (runs) => {
        for (const run of runs) seenQueues.add(run.queue);
        return adapter.submit(runs);
      },
      startWorker: (request, runtime) =>
        adapter.startWorker({ ...request, queues: [...new Set([...request.queues, ...seenQueues])] }, runtime),
    }),
  },
  {
    rule: 11,
    title: "runs that the worker does not know are failed",
    wrap: (adapter) => ({
      ...working((runtime) => ({
        definitions: [...runtime.definitions, { kind: "task", name: "known_elsewhere", queue: "default" }],
        execute: async (attempt) => {
          const decision = await runtime.execute(attempt);
          const known = runtime.definitions.some((definition) => definition.name === attempt.name);
          return known
            ? decision
            : { do: "settle", status: "failed", error: { name: "Error", message: "unknown task", code: "UNKNOWN", retryable: false } };
        },
      }))(adapter),
    }),
  },
  {
    rule: 12,
    title: "a stopping worker gives no grace",
    wrap: (adapter) => ({
      ...adapter,
      startWorker: async (request, runtime) => {
        const handle = await adapter.startWorker(request, runtime);
        return { ...handle, healthy: () => handle.healthy(), stop: () => handle.stop(0) };
      },
    }),
  },
  {
    rule: 13,
    title: "a run that comes back from a lost worker is failed",
    wrap: deciding((decision, attempt) =>
      attempt.attempt > 1 && !attempt.previousError
        ? { do: "settle", status: "failed", error: { name: "Error", message: "seen before", code: "SEEN", retryable: false } }
        : decision,
    ),
  },
  {
    rule: 14,
    title: "submit hides that the engine is unreachable",
    wrap: (adapter) => ({
      ...adapter,
      submit: async (runs) => {
        const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 500));
        return (await Promise.race([adapter.submit(runs), late])) ?? runs.map(() => ({ id: "hidden", deduplicated: false }));
      },
    }),
  },
  {
    rule: 15,
    title: "every feature is declared, whether there or not",
    wrap: (adapter) => ({
      ...adapter,
      connect: async (signal) => {
        const capabilities = await adapter.connect(signal);
        const features = Object.fromEntries(
          Object.keys(capabilities.features).map((feature) => [feature, "native"]),
        ) as typeof capabilities.features;
        return { ...capabilities, features, limits: { ...capabilities.limits, retentionMs: Number.MAX_SAFE_INTEGER } };
      },
    }),
  },
  { rule: 16, title: "text is normalised on the way", wrap: submitting((run) => ({ ...run, input: normalised(run.input) })) },
  {
    rule: 17,
    title: "settled records are shown for ever",
    wrap: (adapter) => {
      const kept = new Map<string, RunRecord>();
      return {
        ...adapter,
        get: async (id) => {
          const record = await adapter.get(id);
          if (record?.finishedAtMs !== undefined) kept.set(id, record);
          return record ?? kept.get(id);
        },
      };
    },
  },
  {
    rule: 18,
    title: "a replay sees completions in another order",
    wrap: working((runtime) => ({
      advance: (tick) => runtime.advance(tick.from === 0 ? { ...tick, entries: shuffled(tick.entries) } : tick),
    })),
  },
  {
    rule: 19,
    title: "each attempt is executed twice",
    wrap: working((runtime) => ({
      execute: async (attempt) => {
        await runtime.execute(attempt);
        return runtime.execute(attempt);
      },
    })),
  },
  {
    rule: 20,
    title: "sleeps are over at once",
    wrap: commanding((command) => (command.do === "sleep" ? { ...command, untilMs: 0 } : command)),
  },
  {
    rule: 21,
    title: "signals with the same dedupeId are all delivered",
    wrap: (adapter) => ({ ...adapter, signal: (id, { name, payload }) => adapter.signal(id, { name, payload }) }),
  },
  {
    rule: 22,
    title: "the error of a workflow does not name the step",
    wrap: answering((result) => {
      if (result.do !== "settle") return result;
      const { step: _, ...error } = result.error;
      return { ...result, error };
    }),
  },
  {
    rule: 23,
    title: "a cancelled workflow completes",
    wrap: answering((result) => (result.do === "settle" && result.status === "cancelled" ? { do: "complete", output: null } : result)),
  },
  { rule: 24, title: "a replay that differs fails the run", wrap: failInstead("NON_DETERMINISM") },
  {
    rule: 25,
    title: "any version advances a run",
    wrap: (adapter) => ({
      ...submitting(without("version"))(adapter),
      startWorker: (request, runtime) =>
        adapter.startWorker(request, {
          ...runtime,
          definitions: runtime.definitions.map(({ version: _, ...definition }) => definition),
          advance: ({ version: _, ...tick }) => runtime.advance(tick),
        }),
    }),
  },
  { rule: 26, title: "a stalled workflow is failed", wrap: failInstead("WORKFLOW_STALLED") },
  {
    rule: 27,
    title: "every tick replays the whole journal",
    wrap: working((runtime) => ({
      advance: (tick) => {
        if (tick.from > 0) runtime.evict(tick.id);
        return runtime.advance(tick);
      },
    })),
  },
  {
    rule: 28,
    title: "steps after the first lose their input",
    wrap: commanding((command) => (command.do === "run" && command.n > 0 ? { ...command, run: { ...command.run, input: null } } : command)),
  },
];

const seenQueues = new Set<string>();

function normalised(value: Json): Json {
  if (typeof value === "string") return value.normalize("NFC");
  if (Array.isArray(value)) return value.map(normalised);
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, normalised(item)]));
  return value;
}

/** Reverses the completions of a journal, and keeps all other entries in place. */
function shuffled(entries: readonly JournalEntry[]): readonly JournalEntry[] {
  const completions = entries.filter((entry) => entry.type === "settled");
  return entries.map((entry) => (entry.type === "settled" ? (completions.pop() as JournalEntry) : entry));
}
