/** Where messages go. Any logger with these four fits behind a small wrapper. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** What a message is about: ids, names, durations. Never secrets. */
export type LogFields = Readonly<Record<string, unknown>>;

const LEVELS = ["debug", "info", "warn", "error"] as const;

/** Writes one line a message to standard error, from `level` on. The logger of a backend that is given none. */
export function stderrLogger(level: (typeof LEVELS)[number] = "info"): Logger {
  const from = LEVELS.indexOf(level);
  const at = (name: (typeof LEVELS)[number]) => (message: string, fields?: LogFields) => {
    if (LEVELS.indexOf(name) < from) return;
    process.stderr.write(`task-backend ${name}: ${message}${fields ? ` ${JSON.stringify(fields)}` : ""}\n`);
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** The same logger with fields that every message carries. */
export function withFields(log: Logger, fields: LogFields): Logger {
  const at = (name: (typeof LEVELS)[number]) => (message: string, more?: LogFields) => log[name](message, { ...fields, ...more });
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** Says nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
