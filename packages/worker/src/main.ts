import { BackendUnavailableError, ConfigurationError, TaskBackendError } from "@task-backend/core";
import { CommandError, parseArguments } from "./arguments.ts";
import { createLog } from "./log.ts";
import { serve } from "./serve.ts";
import { listenForSignals, type StopSignals } from "./signals.ts";
import { oneLine, whyOf } from "./why.ts";

/**
 * Runs the `task-backend-worker` command until a signal stops it.
 * @returns the exit code: 0 stopped, 1 failed, 2 wrong usage
 */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv, signals: StopSignals = listenForSignals()): Promise<0 | 1 | 2> {
  try {
    const given = parseArguments(argv);
    const log = createLog(given.logLevel, given.json === true || !process.stdout.isTTY);
    return await serve(given, env, log, signals);
  } catch (error) {
    return exitCodeOf(error);
  }
}

/** Prints in one line why the command could not run. Any other error is a bug, whose stack is printed. */
function exitCodeOf(error: unknown): 0 | 1 | 2 {
  if (error instanceof CommandError && error.exitCode === 0) {
    process.stdout.write(`${error.message}\n`);
    return 0;
  }
  const expected = error instanceof CommandError || error instanceof TaskBackendError || isSystemError(error);
  if (!expected) throw error;
  // A message about the configuration already contains its cause.
  const told = error instanceof CommandError || error instanceof ConfigurationError;
  process.stderr.write(`task-backend-worker: ${told ? oneLine(error.message) : whyOf(error)}\n`);
  if (error instanceof CommandError) return error.exitCode;
  return error instanceof BackendUnavailableError || isSystemError(error) ? 1 : 2;
}

/** Whether the error is from the operating system: a file that may not be read, an address that is in use. */
function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}
