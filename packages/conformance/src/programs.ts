import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { defineTask, getBackend, silentLogger, type Duration, type TaskBackend } from "@task-backend/core";

/*
 * Programs that the suite runs in separate processes, on the engine that their variables name: applications with an embedded worker,
 * and applications that end. `node programs.js NAME QUEUE`.
 */

const [, , name = "", queue = ""] = process.argv;

const echo = defineTask({ name: "conformance_program_echo", queue, handler: (value: unknown) => value });

const say = (line: string): void => console.log(line);

/** The time limit of calls on a busy machine. */
const PATIENT = "40s";

/** The error's code, or `resolved`, as one word. */
const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "resolved",
    (error: unknown) => (error as { code?: string }).code ?? (error as Error).name,
  );

const open = (callTimeout: Duration): Promise<TaskBackend> => getBackend({ config: false, log: silentLogger, callTimeout });

const programs: Readonly<Record<string, () => Promise<void>>> = {
  /** An application with an embedded worker. It has no listeners of its own for errors that its tasks leave behind. */
  serve: async () => {
    const backend = await getBackend({ config: false });
    await backend.load([fileURLToPath(new URL("./fixtures.js", import.meta.url))]);
    const worker = await backend.startWorker({ queues: [queue] });
    say(`Worker ${worker.name} runs on ${backend.capabilities.engine}`);
    await once(process, "SIGTERM");
    await backend.close();
  },

  /** Uses everything, waits for a run that never ends, closes, and has nothing left to do. */
  closes: async () => {
    const backend = await open(PATIENT);
    await backend.register(echo).startWorker();
    say(`output ${String(await (await backend.submit(echo, "done")).output({ timeout: "30s" }))}`);
    const never = await backend.submit(echo, null, { queue: `${queue}-nobody` });
    say(`waits ${never.id}`);
    const waits = [never.output(), never.output({ timeout: "1h" })].map((wait) => codeOf(wait));
    await pause(500);
    await backend.close();
    say(`closed ${(await Promise.all(waits)).join(" ")}`);
  },

  /** Closes while its worker is starting. */
  races: async () => {
    const backend = await open(PATIENT);
    const starting = backend.register(echo).startWorker();
    const closing = backend.close();
    const [started] = await Promise.allSettled([starting, closing]);
    say(started.status === "rejected" ? codeOfError(started.reason) : started.value.healthy() ? "healthy" : "stopped");
  },

  /** Fails to connect. */
  fails: async () => say(`failed ${await codeOf(open("5s"))}`),
};

function codeOfError(error: unknown): string {
  return `rejected ${(error as { code?: string }).code}`;
}

await (programs[name] as () => Promise<void>)();
