import { createHash } from "node:crypto";
import type { Json } from "../values/json.ts";

/*
 * The keys of a workflow's calls, as the journal records them. A call of a replay matches the recorded call when their keys are equal.
 * Keys are stored, so every form that has ever been written must stay readable.
 */

export function runKey(task: string, input: Json): string {
  const hash = createHash("sha1").update(JSON.stringify(input)).digest("base64url").slice(0, 16);
  return `run:${task}:${hash}`;
}

export function sleepKey(ms: number): string {
  return `sleep:${ms}`;
}

/** `newest`: the wait was made while an older wait of an earlier round for the same signal was open; the next signal goes to it. */
export function waitKey(signal: string, timeoutMs: number | undefined, newest = false): string {
  return `${newest ? "await-newest" : "await"}:${signal}:${timeoutMs ?? ""}`;
}

export function cancelKey(n: number): string {
  return `cancel:${n}`;
}

/** Says how a call differs from its record: in its kind, its name, or a part such as the input or timeout. */
export function differenceOf(n: number, issued: string, recorded: string): string {
  const both = `call ${n} is ${describeCall(issued)}, on record is ${describeCall(recorded)}`;
  const [kind, ...parts] = issued.split(":");
  const [kindThen, ...partsThen] = recorded.split(":");
  if (kind !== kindThen || (kind !== "sleep" && parts.slice(0, -1).join(":") !== partsThen.slice(0, -1).join(":"))) return both;
  if (kind === "run") return `${both}: the same task with another input`;
  if (kind === "await" || kind === "await-newest")
    return `${both}: another timeout, ${timeoutText(parts.at(-1))} instead of ${timeoutText(partsThen.at(-1))}`;
  return kind === "sleep" ? `${both}: another duration` : both;
}

function timeoutText(text: string | undefined): string {
  return text ? `${text} ms` : "none";
}

/** A call in words, for messages. */
export function describeCall(key: string): string {
  const [kind, ...rest] = key.split(":");
  const name = rest.slice(0, -1).join(":");
  if (kind === "run") return `wf.run(${name}) with input #${rest.at(-1)}`;
  if (kind === "sleep") return `wf.sleep(${rest[0]} ms)`;
  if (kind === "await") return `wf.waitForSignal(${name})`;
  if (kind === "await-newest") return `wf.waitForSignal(${name}), with an older wait for it open`;
  return `the cancellation of call ${rest[0]}`;
}
