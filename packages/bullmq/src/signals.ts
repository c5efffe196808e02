import { setTimeout as pause } from "node:timers/promises";
import type { SignalRequest } from "@task-backend/core/adapter";
import { signalEntry, type StoredJob } from "./mapping.ts";
import type { SignalAnswer, Store } from "./store.ts";

/**
 * A workflow that was about to end over a signal goes through its journal once more. While others kept coming it would never end, so
 * they wait for its answer, for so long: its worker may be lost.
 */
const PATIENCE_MS = 2_000;
const LOOK_MS = 20;

/** Sends a signal to a run that was just read. */
export async function sendSignal(store: Store, job: StoredJob, request: SignalRequest): Promise<Exclude<SignalAnswer, "closing">> {
  if (job.finishedOn !== undefined) return "settled";
  // Known by name only, a run has no kind before a worker has taken it.
  if (job.data.kind === "task") return "not-a-workflow";
  for (const until = performance.now() + PATIENCE_MS; ; await pause(LOOK_MS)) {
    const answer = await store.signal(job.ref, signalEntry(request), request.dedupeId, performance.now() < until);
    if (answer !== "closing") return answer;
  }
}
