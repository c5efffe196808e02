import type { AttemptEvent, Logger } from "@task-backend/core";
import { pino } from "pino";
import pretty from "pino-pretty";

/** pino on standard output: for people on a terminal, as JSON lines otherwise. */
export function createLog(level: string, json: boolean): Logger {
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  // In this process and synchronously, so that the last lines of a stopping worker are not lost.
  const log = json
    ? pino(options, pino.destination({ sync: true }))
    : pino(options, pretty({ sync: true, translateTime: "HH:MM:ss.l", singleLine: true }));
  const at = (name: "debug" | "info" | "warn" | "error"): Logger["info"] => {
    return (message, fields) => log[name](fields ?? {}, message);
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** One line for each finished attempt. */
export function logAttempt(log: Logger, event: AttemptEvent): void {
  const { outcome, name, durationMs, delayMs, error, ...fields } = event;
  const took = durationMs === undefined ? "" : ` after ${Math.round(durationMs)} ms`;
  const next = delayMs === undefined ? "" : `, next attempt in ${delayMs} ms`;
  const why = error && outcome !== "cancelled" ? `: ${error.message}` : "";
  const level = outcome === "failed" || outcome === "timed_out" ? "error" : outcome === "retrying" ? "warn" : "info";
  log[level](`${name} ${outcome}${took}${next}${why}`, {
    ...fields,
    outcome,
    ...(durationMs !== undefined && { durationMs: Math.round(durationMs) }),
    ...(error && { code: error.code }),
  });
}
