import type { JournalEntry } from "@task-backend/core/adapter";
import type { Client } from "@temporalio/client";
import { WAKE } from "./wire.ts";
import type { ArrivedAt } from "./order.ts";

/** The events of these pages cover everything since the last tick; earlier events get no time. */
const PAGE = 1_000;
const MAX_PAGES = 5;

export interface Execution {
  readonly workflowId: string;
  readonly runId: string;
}

type Reversed = Awaited<ReturnType<Client["workflowService"]["getWorkflowExecutionHistoryReverse"]>>;
type Event = NonNullable<NonNullable<Reversed["history"]>["events"]>[number];

/**
 * The times at which entries arrived, by the server's history. The sandbox gets several events at once, without their times.
 * @param last the number of the last event from which entries come
 */
export async function arrivalTimes(
  client: Client,
  execution: Execution,
  entries: readonly JournalEntry[],
  last: number,
): Promise<ArrivedAt> {
  const signals = entries.filter((entry) => entry.type === "signal").toReversed();
  const steps = new Map<string, JournalEntry>();
  for (const entry of entries) if (entry.type === "settled") steps.set(`${entry.n}`, entry);
  const times = new Map<JournalEntry, number>();
  // The end of an activity names the event that scheduled it. That event has the activity's id, and comes later in this order.
  const ended = new Map<string, number>();
  let open = signals.length + steps.size;
  const found = (entry: JournalEntry | undefined, atMs: number): void => {
    if (!entry || times.has(entry)) return;
    times.set(entry, atMs);
    open--;
  };
  const look = (event: Event): void => {
    if (Number(event.eventId) > last) return;
    const atMs = msOf(event);
    const signal = event.workflowExecutionSignaledEventAttributes;
    if (signal && signal.signalName !== WAKE) {
      const index = signals.findIndex((entry) => entry.name === signal.signalName);
      if (index >= 0) found(signals.splice(index, 1)[0], atMs);
    }
    const scheduled = scheduledBy(event);
    if (scheduled !== undefined) ended.set(scheduled, atMs);
    const endedAtMs = event.activityTaskScheduledEventAttributes ? ended.get(`${Number(event.eventId)}`) : undefined;
    if (endedAtMs !== undefined) found(steps.get(event.activityTaskScheduledEventAttributes?.activityId ?? ""), endedAtMs);
    const child = childOf(event);
    if (child?.startsWith(`${execution.workflowId}.`)) found(steps.get(child.slice(execution.workflowId.length + 1)), atMs);
  };
  let token: Reversed["nextPageToken"] | undefined;
  for (let page = 0; page < MAX_PAGES && open > 0; page++) {
    const { namespace } = client.options;
    const request = { namespace, execution, maximumPageSize: PAGE, ...(token && { nextPageToken: token }) };
    const { history, nextPageToken } = await client.workflowService.getWorkflowExecutionHistoryReverse(request);
    for (const event of history?.events ?? []) look(event);
    token = nextPageToken;
    if (!token?.length) break;
  }
  return (entry) => times.get(entry);
}

function scheduledBy(event: Event): string | undefined {
  const id =
    event.activityTaskCompletedEventAttributes?.scheduledEventId ??
    event.activityTaskFailedEventAttributes?.scheduledEventId ??
    event.activityTaskTimedOutEventAttributes?.scheduledEventId ??
    event.activityTaskCanceledEventAttributes?.scheduledEventId;
  return id === undefined || id === null ? undefined : `${Number(id)}`;
}

function childOf(event: Event): string | undefined {
  const ended =
    event.childWorkflowExecutionCompletedEventAttributes ??
    event.childWorkflowExecutionFailedEventAttributes ??
    event.childWorkflowExecutionCanceledEventAttributes ??
    event.childWorkflowExecutionTerminatedEventAttributes;
  return ended?.workflowExecution?.workflowId ?? undefined;
}

function msOf({ eventTime }: Event): number {
  return Number(eventTime?.seconds ?? 0) * 1_000 + Math.floor((eventTime?.nanos ?? 0) / 1e6);
}
