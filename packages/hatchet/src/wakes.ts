import { randomUUID } from "node:crypto";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { V1Event } from "@hatchet-dev/typescript-sdk/clients/rest/generated/data-contracts.js";
import { wakeKey, type Wake } from "./wire.ts";

const PAGE = 100;

/** Accepted when it resolves: events are kept, whether the workflow listens by now or not. */
export async function sendWake(client: HatchetClient, runId: string, entry?: Wake["entry"]): Promise<void> {
  const wake: Wake = { id: randomUUID(), atMs: Date.now(), ...(entry && { entry }) };
  await client.events.push(wakeKey(runId), { ...wake });
}

/** A wake, with when the server says that it came. */
export type ReadWake = Wake & { readonly seenAtMs: number };

/** All that was sent to a run, in order, as the server lists it: late under load, and not what came just before a crash of the server. */
export async function readWakes(client: HatchetClient, runId: string, sinceMs: number): Promise<ReadWake[]> {
  const key = `${client.config.namespace ?? ""}${wakeKey(runId)}`;
  const since = new Date(Math.max(sinceMs - 60_000, 0)).toISOString();
  const rows: V1Event[] = [];
  for (let offset = 0; ; offset += PAGE) {
    const { data } = await client.api.v1EventList(client.tenantId, { keys: [key], since, limit: PAGE, offset });
    const page = data.rows ?? [];
    rows.push(...page);
    if (page.length < PAGE) break;
  }
  return rows
    .map(({ payload, seenAt }) => ({ ...(payload as Wake), seenAtMs: Date.parse(seenAt ?? "") }))
    .filter(({ entry }) => entry !== undefined)
    .sort((a, b) => a.seenAtMs - b.seenAtMs || a.atMs - b.atMs);
}
