import { AsyncLocalStorage } from "node:async_hooks";
import { describeThrown, toErrorRecord } from "../values/error-record.ts";
import type { Logger } from "../values/log.ts";

/** The run of a task or workflow in this worker whose code is running. */
export interface RunScope {
  readonly id: string;
  readonly name: string;
  readonly kind: "task" | "workflow";
  readonly log: Logger;
  /** Ends the attempt with an error that was thrown outside of its promises, for example in the callback of a timer. */
  fail?(thrown: unknown): void;
}

type RejectionListener = (reason: unknown, promise: Promise<unknown>) => void;

/** The process has one, whichever copy of the package made it: two would take each other's errors for the application's. */
interface Guard {
  readonly scopes: AsyncLocalStorage<RunScope>;
  users: number;
  stop: () => void;
}

const GUARD = Symbol.for("task-backend.guard");
const holder = globalThis as { [GUARD]?: Guard };
const guard: Guard = (holder[GUARD] ??= { scopes: new AsyncLocalStorage<RunScope>(), users: 0, stop: () => {} });

/** Runs code of the user in the scope of its run, so that a forgotten promise or timer can be traced to that run. */
export function inRun<T>(scope: RunScope, code: () => T): T {
  return guard.scopes.run(scope, code);
}

/** The run whose code is running, in this worker's process. */
export function currentRun(): RunScope | undefined {
  return guard.scopes.getStore();
}

/**
 * While the process is guarded, a promise that a run's code forgot, or an exception in one of its callbacks, costs at most that run.
 * Every other error has the same effect as without the guard.
 * @returns a function that ends the guarding
 */
export function guardProcess(): () => void {
  if (guard.users++ === 0) guard.stop = listen();
  let ended = false;
  return () => {
    if (ended) return;
    ended = true;
    if (--guard.users === 0) guard.stop();
  };
}

function listen(): () => void {
  const onRejection: RejectionListener = (reason) => {
    const scope = currentRun();
    if (scope) {
      scope.log.warn(
        `A promise in the code of ${scope.kind} "${scope.name}" was rejected and nobody handled it in time: ${describeThrown(reason)}`,
        fieldsOf(scope, reason),
      );
    } else if (process.listenerCount("unhandledRejection") === 1) asNodeWould(reason);
  };
  const onException = (thrown: unknown, origin: NodeJS.UncaughtExceptionOrigin): void => {
    const scope = currentRun();
    if (scope) {
      scope.log.error(
        `The code of ${scope.kind} "${scope.name}" threw outside of its promises: ${describeThrown(thrown)}`,
        fieldsOf(scope, thrown),
      );
      scope.fail?.(thrown);
    } else if (process.listenerCount("uncaughtException") === 1) crash(thrown, origin);
  };
  /** Removes our listeners. If no other listener is left, Node prints the error and ends the process. */
  const crash = (thrown: unknown, origin: NodeJS.UncaughtExceptionOrigin): void => {
    process.off("uncaughtException", onException).off("unhandledRejection", onRejection);
    if (process.listenerCount("uncaughtException") > 0) {
      (process as NodeJS.EventEmitter).emit("uncaughtException", thrown, origin);
      process.on("uncaughtException", onException).on("unhandledRejection", onRejection);
      return;
    }
    process.nextTick(() => {
      throw thrown;
    });
  };
  const asNodeWould = (reason: unknown): void => {
    const mode = rejectionMode();
    if (mode === "none") return;
    if (mode.startsWith("warn")) {
      process.emitWarning(`A promise was rejected and nobody handled it: ${describeThrown(reason)}`, "UnhandledPromiseRejectionWarning");
      if (mode === "warn-with-error-code") process.exitCode = 1;
      return;
    }
    crash(reason instanceof Error ? reason : rejectionError(reason), "unhandledRejection");
  };
  process.on("unhandledRejection", onRejection).on("uncaughtException", onException);
  return () => process.off("unhandledRejection", onRejection).off("uncaughtException", onException);
}

function fieldsOf({ id, name, kind }: RunScope, thrown: unknown) {
  const { stack } = toErrorRecord(thrown);
  return { run: id, [kind]: name, ...(stack !== undefined && { stack }) };
}

/** The mode that Node was started with: its last option, or the default `throw`. */
function rejectionMode(): string {
  const options = [process.env["NODE_OPTIONS"] ?? "", ...process.execArgv].join(" ");
  return [...options.matchAll(/--unhandled-rejections[= ](\S+)/g)].at(-1)?.[1] ?? "throw";
}

function rejectionError(reason: unknown): Error {
  const message = `A promise was rejected and nobody handled it, with the reason ${describeThrown(reason)}`;
  return Object.assign(new Error(message), { code: "ERR_UNHANDLED_REJECTION" });
}
