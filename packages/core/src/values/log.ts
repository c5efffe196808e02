import { inspect } from "node:util";

/** Receives messages. Any logger with these four methods fits behind a small wrapper. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** The facts of a message: ids, names, durations. Never secrets. */
export type LogFields = Readonly<Record<string, unknown>>;

const LEVELS = ["debug", "info", "warn", "error"] as const;

type Level = (typeof LEVELS)[number];
type Write = (message: string, fields?: LogFields) => void;

function loggerOf(at: (level: Level) => Write): Logger {
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** Writes one line per message to standard error, from `level` on. A backend without a logger uses it. */
export function stderrLogger(level: Level = "info"): Logger {
  const from = LEVELS.indexOf(level);
  return loggerOf((name) => (message, fields) => {
    if (LEVELS.indexOf(name) < from) return;
    process.stderr.write(`task-backend ${name}: ${message}${fields ? ` ${fieldsText(fields)}` : ""}\n`);
  });
}

/** The same logger, with fields in every message. */
export function withFields(log: Logger, fields: LogFields): Logger {
  return loggerOf((level) => (message, more) => log[level](message, merged(fields, more)));
}

const GUARDED = new WeakSet<Logger>();

/** The same logger, made never to throw: a failing logger must not fail the run that the message is about. */
export function guardedLogger(log: Logger): Logger {
  if (GUARDED.has(log)) return log;
  const complain = (level: Level, message: string, thrown: unknown): void => {
    process.stderr.write(`task-backend ${level}: ${message} (the logger failed: ${inspectSafely(thrown)})\n`);
  };
  const guarded = loggerOf((level) => (message, fields) => {
    try {
      const answer: unknown = log[level](message, fields);
      if (answer instanceof Promise) answer.catch((error: unknown) => complain(level, message, error));
    } catch (error) {
      complain(level, message, error);
    }
  });
  GUARDED.add(guarded);
  return guarded;
}

/** A logger that writes nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

function merged(fields: LogFields, more: LogFields | undefined): LogFields {
  try {
    return { ...fields, ...more };
  } catch {
    return { ...fields, unreadable: inspectSafely(more) };
  }
}

/** One line of JSON. Errors are included with their properties, and values that JSON cannot hold are described in words. */
function fieldsText(fields: LogFields): string {
  const open: object[] = [];
  function plain(this: unknown, _key: string, value: unknown): unknown {
    if (typeof value === "bigint") return `${value}n`;
    if (typeof value !== "object" || value === null) return value;
    // The object that holds this value is the innermost open one.
    while (open.length > 0 && open.at(-1) !== this) open.pop();
    if (open.includes(value)) return "[circular]";
    open.push(value);
    if (!(value instanceof Error)) return value;
    const { name, message, stack, cause } = value;
    const error = { ...Object.fromEntries(Object.entries(value)), name, message, stack, ...(cause !== undefined && { cause }) };
    open[open.length - 1] = error;
    return error;
  }
  try {
    return JSON.stringify(fields, plain);
  } catch {
    return inspectSafely(fields);
  }
}

function inspectSafely(value: unknown): string {
  try {
    return inspect(value, { breakLength: Number.POSITIVE_INFINITY, depth: 3 });
  } catch {
    return "a value that cannot be printed";
  }
}
