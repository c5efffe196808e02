import type { AttemptEvent, Logger } from "@task-backend/core";
import { pino } from "pino";
import pretty from "pino-pretty";
import { printable } from "./printable.ts";
import { chainOf } from "./why.ts";

/** The fields that pino itself writes in every line: logged fields must not replace them. */
const OWN = ["level", "time", "msg"];

/** Logs with pino to standard output: readable text on a terminal, JSON lines otherwise. */
export function createLog(level: string, json: boolean): Logger {
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  // The log is written in this process and synchronously, so that the last lines of a stopping worker are not lost.
  const log = json
    ? pino(options, pino.destination({ sync: true }))
    : pino(options, pretty({ sync: true, translateTime: "HH:MM:ss.l", singleLine: true }));
  const at = (name: "debug" | "info" | "warn" | "error"): Logger["info"] => {
    return (message, fields) => {
      if (log.isLevelEnabled(name)) log[name](fieldsOf(fields), textOf(message));
    };
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** Logs one line for each finished attempt. The message says what failed and why; the field `error` has everything, with stacks. */
export function logAttempt(log: Logger, event: AttemptEvent): void {
  const { outcome, name, durationMs, delayMs, error, ...fields } = event;
  const took = durationMs === undefined ? "" : ` after ${Math.round(durationMs)} ms`;
  const next = delayMs === undefined ? "" : `, next attempt in ${delayMs} ms`;
  const failure = outcome === "cancelled" ? undefined : error;
  const level = outcome === "failed" || outcome === "timed_out" ? "error" : outcome === "retrying" ? "warn" : "info";
  log[level](`${name} ${outcome}${took}${next}${failure ? `: ${chainOf(failure)}` : ""}`, {
    ...fields,
    outcome,
    ...(durationMs !== undefined && { durationMs: Math.round(durationMs) }),
    ...(error && { code: error.code }),
    ...(failure && { error: failure }),
  });
}

/** Makes fields of any value, because handlers may log anything. */
function fieldsOf(fields: unknown): Record<string, unknown> {
  if (fields === undefined || fields === null) return {};
  const plain = printable(fields);
  if (fields instanceof Error || typeof plain !== "object" || plain === null || Array.isArray(plain)) return { fields: plain };
  return Object.fromEntries(Object.entries(plain).map(([key, value]) => [OWN.includes(key) ? `${key}_` : key, value]));
}

function textOf(message: unknown): string {
  return typeof message === "string" ? message : (JSON.stringify(printable(message)) ?? "undefined");
}
