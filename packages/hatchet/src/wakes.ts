import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import type { V1Event } from "@hatchet-dev/typescript-sdk/clients/rest/generated/data-contracts.js";
import { wakeKey, type Wake } from "./wire.ts";

const PAGE = 100;

/** Accepted when it resolves: events are kept, whether the workflow listens by now or not. */
export async function sendWake(client: HatchetClient, runId: string, wake: Wake): Promise<void> {
  await client.events.push(wakeKey(runId), { ...wake, atMs: Date.now() });
}

/** A wake, with the id of its event. */
export type ReadWake = Wake & { readonly id: string; readonly seenAtMs: number };

/** All that was sent to a run, in order. */
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
  const ofRow = (row: V1Event) => row.payload as Wake & { atMs?: number };
  return rows
    .sort((a, b) => Date.parse(a.seenAt ?? "") - Date.parse(b.seenAt ?? "") || (ofRow(a)?.atMs ?? 0) - (ofRow(b)?.atMs ?? 0))
    .map((row) => ({ ...ofRow(row), id: row.metadata.id, seenAtMs: Date.parse(row.seenAt ?? "") }))
    .filter(({ entry }) => entry !== undefined);
}
