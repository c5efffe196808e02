import { createRequire } from "node:module";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import type { Duration } from "@task-backend/core";

const LEVELS = ["debug", "info", "warn", "error", "silent"] as const;

/** The command line as given; absent values may still come from the environment or the configuration file. */
export interface Arguments {
  readonly queues?: readonly string[];
  readonly tasks?: readonly string[];
  readonly concurrency?: number;
  readonly name?: string;
  readonly grace?: Duration;
  readonly healthPort?: number;
  readonly logLevel: (typeof LEVELS)[number];
  readonly json?: boolean;
  readonly config?: string;
}

/** The text and exit code of a command that does not run: 0 after help or version, 1 when it cannot run, 2 for wrong usage. */
export class CommandError extends Error {
  readonly exitCode: 0 | 1 | 2;
  constructor(message: string, exitCode: 0 | 1 | 2 = 2) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** @throws CommandError */
export function parseArguments(argv: readonly string[]): Arguments {
  const { version } = createRequire(import.meta.url)("../package.json") as { version: string };
  let printed = "";
  const command = new Command("task-backend-worker")
    .description("Runs tasks and workflows from the queues it is given, on the engine that TASK_BACKEND_TYPE names.")
    .version(version, "--version", "print the version")
    .helpOption("--help", "print this help")
    .option("--queues <names>", "queues to take runs from, separated by commas (TASK_QUEUES outside production)", listOf)
    .option("--tasks <modules...>", "modules that export tasks and workflows: paths, globs, or packages")
    .option("--concurrency <number>", "attempts at a time, in all queues together (default: 10)", wholeFrom(1))
    .option("--name <name>", "name of this worker (default: host, queues and a short id)", notBlank)
    .option("--grace <duration>", 'how long running attempts may go on after a stop, such as "30s" (default: 30s)')
    .option("--health-port <port>", "serve /live and /ready over HTTP", wholeFrom(0, 65_535))
    .addOption(new Option("--log-level <level>", "least level to log").choices(LEVELS).default("info"))
    .option("--json", "log JSON lines, as is done when standard output is no terminal")
    .option("--config <file>", "configuration file (default: task-backend.config.* beside package.json)")
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeOut: (text) => (printed += text), writeErr: (text) => (printed += text) });
  try {
    return command.parse(argv, { from: "user" }).opts<Arguments>();
  } catch (error) {
    if (error instanceof CommanderError) throw new CommandError(printed.trimEnd() || error.message, error.exitCode === 0 ? 0 : 2);
    throw error;
  }
}

/** Splits names at commas, and trims them. */
export function listOf(text: string): string[] {
  return text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

function wholeFrom(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const number = Number(text);
    const range = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`;
    if (!/^\d+$/.test(text) || number < least || number > most) throw new InvalidArgumentError(`Give a whole number ${range}.`);
    return number;
  };
}

function notBlank(text: string): string {
  if (text.trim() === "") throw new InvalidArgumentError("Give a name, or leave the option out.");
  return text;
}
