import { randomBytes } from "node:crypto";
import { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import {
  chain,
  createBackend,
  defineTask,
  defineWorkflow,
  silentLogger,
  taskRef,
  TaskCancelledError,
  type Run,
  type TaskBackend,
} from "@task-backend/core";
import { hatchet, type HatchetOptions } from "@task-backend/hatchet";
import { describe, expect, test } from "vitest";
import { stop, type Server } from "../engines/engine.ts";
import { hatchet as engine } from "../engines/hatchet.ts";
import { discard } from "../engines/index.ts";
import { postgres } from "../engines/postgres.ts";
import { onEngine } from "./engines/required.ts";
import { hatchetUnderTest } from "./engines/hatchet.ts";
import { killedAtEachStep } from "./killed-at-each-step.ts";

const newQueue = (): string => `q-${randomBytes(5).toString("hex")}`;
/** Hatchet's names are shared by the whole tenant, so tests that look at them use new ones. */
const newName = (name: string): string => `${name}-${randomBytes(5).toString("hex")}`;

const double = defineTask({
  name: "double",
  retry: { attempts: 10, backoff: { delay: 100, jitter: false } },
  handler: async (n: number) => 2 * n,
});
const eightfold = chain("eightfold", [double, double, double]);

const open = async (options: HatchetOptions = {}): Promise<TaskBackend> =>
  (await createBackend(hatchet(options), { log: silentLogger })).register(double, eightfold);

onEngine("hatchet", "HATCHET_CLIENT_TOKEN", "hatchet, as its own users see it", () => {
  describe("hatchet, as its own users see it", () => {
    const client = (): HatchetClient => HatchetClient.init({ log_level: "OFF" });

    test("a run of a name that nobody has registered is kept, and run by the first worker that knows it", async () => {
      const [queue, name] = [newQueue(), newName("unheard-of")];
      const backend = await open();
      const byName = await backend.submit(name, { n: 1 }, { queue });
      const byRef = await backend.submit(taskRef<{ n: number }, number>({ name, queue }), { n: 2 });
      expect((await byName.result()).status).toBe("pending");
      backend.register(defineTask({ name, queue, handler: async ({ n }: { n: number }) => n + 1 }));
      await backend.startWorker({ queues: [queue] });
      expect([await byName.output({ timeout: "20s" }), await byRef.output({ timeout: "20s" })]).toEqual([2, 3]);
      await backend.close();
    });

    test("a delayed run keeps its id, which is a run of Hatchet from the beginning", async () => {
      const queue = newQueue();
      const backend = await open();
      await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(double, 4, { queue, delay: "3s" });
      expect((await client().runs.getDetails(run.id)).done).toBe(false);
      expect(await run.output({ timeout: "50s" })).toBe(8);
      expect((await client().runs.getDetails(run.id)).status).toBe("COMPLETED");
      await backend.close();
    }, 60_000);

    test("a cancelled run reads as cancelled, where Hatchet's own result is empty", async () => {
      const queue = newQueue();
      const backend = await open();
      const run = await backend.submit(double, 1, { queue });
      const waiting = run.output({ timeout: "20s" });
      waiting.catch(() => {});
      await client().runs.cancel({ ids: [run.id] });
      await expect(waiting).rejects.toThrow(TaskCancelledError);
      expect(await run.result()).toMatchObject({ status: "cancelled", attempts: 0 });
      await backend.close();
    });

    test("a task may take longer than Hatchet's own limits of a minute, and the process's signals stay the application's", async () => {
      const queue = newQueue();
      const listeners = process.listenerCount("SIGTERM");
      const backend = await open();
      const long = defineTask({
        name: newName("long"),
        queue,
        handler: async (_: null, context) => {
          await new Promise((resolve) => setTimeout(resolve, 75_000));
          return [context.attempt, context.signal.aborted];
        },
      });
      backend.register(long);
      await backend.startWorker({ queues: [queue] });
      expect(process.listenerCount("SIGTERM")).toBe(listeners);
      const run = await backend.submit(long, null);
      expect(await run.output({ timeout: "100s" })).toEqual([1, false]);
      const { data } = await client().api.v1TaskGet(run.id);
      const [task] = (data.workflowConfig as { Tasks: { Timeout: string; ScheduleTimeout: string }[] }).Tasks;
      // The timeout is a lease that the worker has extended.
      expect(task).toMatchObject({ Timeout: "60s", ScheduleTimeout: "87600h" });
      await backend.close();
    }, 120_000);

    test("a final failure is not tried again by Hatchet, and its error is readable there", async () => {
      const [queue, name] = [newQueue(), newName("fails")];
      const backend = await open();
      const fails = defineTask({
        name,
        queue,
        retry: { attempts: 1 },
        handler: async (_: null) => Promise.reject(new Error("on purpose")),
      });
      backend.register(fails);
      await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(fails, null);
      await expect(run.output({ timeout: "20s" })).rejects.toThrow("on purpose");
      const details = await client().runs.getDetails(run.id);
      expect(details.status).toBe("FAILED");
      expect(Object.values(details.taskRuns)[0]?.error).toContain("on purpose");
      await backend.close();
    });

    test("ours is run from Hatchet's side by its name, and others' by reference", async () => {
      const [queue, name, theirs] = [newQueue(), newName("ours"), newName("theirs")];
      const backend = await open();
      const greet = defineTask({ name, queue, handler: async ({ word }: { word: string }) => `hello ${word}` });
      const shout = taskRef<{ word: string }, { text: string }>({ name: theirs, queue });
      const both = defineWorkflow({ name: newName("both"), queue, handler: async (wf, word: string) => wf.run(shout, { word }) });
      backend.register(greet, both);
      await backend.startWorker({ queues: [queue] });
      const own = client();
      const ref = await own.runNoWait(name, { word: "ada" }, {});
      expect(await ref.output).toMatchObject({ [name]: { output: "hello ada" } });
      const task = own.task({ name: theirs, fn: async ({ word }: { word: string }) => ({ text: word.toUpperCase() }) });
      const worker = await own.worker(newName("worker"), { workflows: [task], handleKill: false, labels: { [`queue:${queue}`]: 1 } });
      void worker.start();
      await worker.waitUntilReady();
      expect(await (await backend.submit(shout, { word: "hi" })).output({ timeout: "20s" })).toEqual({ text: "HI" });
      expect(await (await backend.submit(both, "bo")).output({ timeout: "20s" })).toEqual({ text: "BO" });
      await backend.close();
      await worker.stop();
    }, 60_000);

    test("names that differ in what Hatchet does not tell apart are refused when the worker starts", async () => {
      const queue = newQueue();
      const backend = await open();
      const [one, two] = ["Same name", "same-name"].map((name) => defineTask({ name, queue, handler: async (_: null) => 1 }));
      backend.register(one as never, two as never);
      await expect(backend.startWorker({ queues: [queue] })).rejects.toMatchObject({ name: "ConfigurationError" });
      await backend.close();
    });
  });

  killedAtEachStep(hatchetUnderTest("hatchet"), 240_000);

  const ownServer = async (work: (server: Server, options: HatchetOptions) => Promise<void>): Promise<void> => {
    const server = await engine.start(engine.find() as string);
    const { HATCHET_CLIENT_TOKEN: token = "", HATCHET_CLIENT_HOST_PORT: hostPort = "", HATCHET_CLIENT_API_URL: apiUrl = "" } = server.env;
    try {
      await work(server, { token, hostPort, apiUrl, tls: "none" });
    } finally {
      await discard(server);
    }
  };

  const inTheMiddle = (what: string, restart: (server: Server) => Promise<Server[]>): void =>
    test(`${what} restarts in the middle of 300 tasks and 10 chains, and nothing is lost`, async () => {
      const more: Server[] = [];
      try {
        await ownServer(async (server, options) => {
          const [producer, worker] = [await open(options), await open(options)];
          const tasks = await producer.submitMany(
            Array.from({ length: 300 }, (_, n) => ({ task: double, input: n, options: { queue: "default" } })),
          );
          const chains = await producer.submitMany(Array.from({ length: 10 }, (_, n) => ({ task: eightfold, input: n })));
          await worker.startWorker({ queues: ["default"], concurrency: 5 });
          const outputs = Promise.all([...tasks, ...chains].map((run: Run<number>) => run.output({ timeout: "300s" })));
          outputs.catch(() => {});
          await expect.poll(async () => (await (tasks[20] as Run).result()).status, { timeout: 60_000 }).toBe("completed");
          more.push(...(await restart(server)));
          expect(await outputs).toEqual([...tasks.map((_, n) => 2 * n), ...chains.map((_, n) => 8 * n)]);
          await producer.close();
          await worker.close();
        });
      } finally {
        for (const one of more) await stop(one);
      }
    }, 420_000);

  inTheMiddle("hatchet", async (server) => {
    await stop(server, "SIGKILL");
    return [await engine.start(engine.find() as string, { again: { folder: server.folder, port: 0 } })];
  });
  inTheMiddle("its PostgreSQL", async ({ needs }) => {
    const database = needs as Server;
    await stop(database, "SIGQUIT");
    const { port } = new URL(database.env[postgres.variable] as string);
    return [await postgres.start(postgres.find() as string, { again: { folder: database.folder, port: Number(port) } })];
  });
});

test("what cannot be is refused with the remedy, and secrets are not shown", async () => {
  const env = { ...process.env };
  delete process.env["HATCHET_CLIENT_TOKEN"];
  try {
    expect(() => hatchet({ hostPort: "127.0.0.1:1" })).toThrow(/set HATCHET_CLIENT_TOKEN/);
    expect(() => hatchet({ url: "redis://host" })).toThrow(/must be hatchet:\/\/host:port/);
    expect(() => hatchet({ wrong: 1 } as never)).toThrow(/They are url, token/);
    expect(() => hatchet({ token: "secret-word" })).toThrow(/is not one/);
    const claims = Buffer.from(JSON.stringify({ sub: "707d0855-80ab-4e1f-a156-f1c4546cbf52", secret: "secret-word" })).toString(
      "base64url",
    );
    const token = `e30.${claims}.secret-word`;
    const failed = await createBackend(hatchet({ token, hostPort: "127.0.0.1:1", apiUrl: "http://127.0.0.1:1", tls: "none" }), {
      callTimeout: "4s",
      log: silentLogger,
    }).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(failed).toMatchObject({ name: "BackendUnavailableError" });
    expect(failed?.message).not.toContain("secret-word");
  } finally {
    Object.assign(process.env, env);
  }
});
