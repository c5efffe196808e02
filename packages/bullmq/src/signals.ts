import { setTimeout as pause } from "node:timers/promises";
import type { SignalRequest } from "@task-backend/core/adapter";
import { signalEntry, type StoredJob } from "./mapping.ts";
import type { SignalAnswer, Store } from "./store.ts";

/**
 * How long new signals wait while a workflow that was about to end replays its journal because of an earlier signal. Otherwise a
 * steady flow of signals could keep it from ever ending. The wait is limited, because the worker may be lost.
 */
const PATIENCE_MS = 2_000;
const LOOK_MS = 20;

/** Sends a signal to a run that was just read. */
export async function sendSignal(store: Store, job: StoredJob, request: SignalRequest): Promise<Exclude<SignalAnswer, "closing">> {
  if (job.finishedOn !== undefined) return "settled";
  // A run submitted by name only has no kind until a worker claims it.
  if (job.data.kind === "task") return "not-a-workflow";
  for (const until = performance.now() + PATIENCE_MS; ; await pause(LOOK_MS)) {
    const answer = await store.signal(job.ref, signalEntry(request), request.dedupeId, performance.now() < until);
    if (answer !== "closing") return answer;
  }
}
