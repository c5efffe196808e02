import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { chain, createBackend, defineTask, defineWorkflow, silentLogger, taskRef, type Run, type TaskBackend } from "@task-backend/core";
import { temporal } from "@task-backend/temporal";
import { Client, Connection } from "@temporalio/client";
import type { PayloadCodec } from "@temporalio/common";
import { NativeConnection, Worker } from "@temporalio/worker";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stop, type Server } from "../engines/engine.ts";
import { discard } from "../engines/index.ts";
import { temporal as engine } from "../engines/temporal.ts";
import { onEngine } from "./engines/required.ts";
import { temporalUnderTest } from "./engines/temporal.ts";
import { killedAtEachStep } from "./killed-at-each-step.ts";

const double = defineTask({
  name: "double",
  retry: { attempts: 10, backoff: { delay: 100, jitter: false } },
  handler: async (n: number) => 2 * n,
});
const eightfold = chain("eightfold", [double, double, double]);
const nested = defineWorkflow({ name: "nested", handler: async (wf, n: number) => (await wf.run(eightfold, n)) + 1 });
const newQueue = (): string => `q-${randomBytes(5).toString("hex")}`;

const reversed: PayloadCodec = {
  encode: async (payloads) =>
    payloads.map(({ metadata, data }) => ({
      metadata: { encoding: Buffer.from("binary/reversed"), inner: metadata?.["encoding"] ?? Buffer.alloc(0) },
      data: Buffer.from(data ?? []).toReversed(),
    })),
  decode: async (payloads) =>
    payloads.map(({ metadata, data }) => ({
      metadata: { encoding: metadata?.["inner"] ?? Buffer.alloc(0) },
      data: Buffer.from(data ?? []).toReversed(),
    })),
};

async function open(address: string): Promise<TaskBackend> {
  const backend = await createBackend(temporal({ address, heartbeatTimeout: "3s" }), { log: silentLogger });
  return backend.register(double, eightfold, nested);
}

onEngine("temporal", "TEMPORAL_ADDRESS", "temporal, as its own users see it", (address) => {
  describe("temporal, as its own users see it", () => {
    let connection: Connection;
    let client: Client;
    beforeAll(async () => {
      connection = await Connection.connect({ address });
      client = new Client({ connection });
    });
    afterAll(() => connection.close());

    test("a task is a standalone activity of its name, with input and result in clear", async () => {
      const queue = newQueue();
      const backend = await open(address);
      const run = await backend.submit(double, 21, { queue, headers: { trace: "t1" } });
      await backend.startWorker({ queues: [queue] });
      expect(await run.output({ timeout: "15s" })).toBe(42);
      const description = await client.activity
        .getHandle(run.id.replace("activity:", ""))
        .describe({ includeInput: true, includeOutcome: true });
      expect(description).toMatchObject({ activityType: "double", taskQueue: queue, status: "COMPLETED" });
      expect(await description.getInput()).toEqual([21, { kind: "task", headers: { trace: "t1" } }]);
      expect(await description.getResult()).toBe(42);
      await backend.close();
    });

    test("a workflow shows its name, its steps as activities of theirs, and nothing else; at most 8 events a step", async () => {
      const queue = newQueue();
      const backend = await open(address);
      await backend.startWorker({ queues: [queue, "default"] });
      const run = await backend.submit(eightfold, 2, { queue });
      expect(await run.output({ timeout: "30s" })).toBe(16);
      const id = run.id.replace("workflow:", "");
      const handle = client.workflow.getHandle(id);
      expect(await handle.describe()).toMatchObject({ type: "eightfold", taskQueue: queue, status: { name: "COMPLETED" } });
      expect(await handle.result()).toBe(16);
      const { events = [] } = await handle.fetchHistory();
      const types = events?.flatMap((event) => event.activityTaskScheduledEventAttributes?.activityType?.name ?? []);
      expect(types).toEqual(["double", "double", "double"]);
      expect((events?.length ?? 0) / 3).toBeLessThanOrEqual(8 + 2);
      await backend.close();
    });

    test("what is started from Temporal's side runs here: our activity and our workflow, with the input alone", async () => {
      const queue = newQueue();
      const backend = await open(address);
      await backend.startWorker({ queues: [queue, "default"] });
      const activity = await client.activity.execute("double", { id: newQueue(), taskQueue: queue, args: [4], startToCloseTimeout: "1m" });
      expect(activity).toBe(8);
      expect(await client.workflow.execute("eightfold", { workflowId: newQueue(), taskQueue: queue, args: [1] })).toBe(8);
      await backend.close();
    });

    test("a task of ours that is started as a workflow reads as a task: attempts, progress, cancel", async () => {
      const queue = newQueue();
      const second = defineTask({
        name: "second",
        queue,
        retry: { attempts: 3, backoff: { delay: 10, jitter: false } },
        handler: async (word: string, context) => {
          context.progress(context.attempt);
          if (context.attempt === 1) throw new Error("the first time");
          return `${word} ${context.id}`;
        },
      });
      const later = defineTask({
        name: "later",
        queue,
        retry: { attempts: 2, backoff: { delay: "10m" } },
        handler: async (_: null): Promise<void> => {
          throw new Error("not now");
        },
      });
      const backend = await open(address);
      backend.register(second, later);
      await backend.startWorker();
      const [one, two] = [newQueue(), newQueue()];
      await client.workflow.start("later", { workflowId: two, taskQueue: queue, args: [null] });
      expect(await client.workflow.execute("second", { workflowId: one, taskQueue: queue, args: ["done"] })).toBe(`done workflow:${one}`);
      expect(await backend.getResult(`workflow:${one}`)).toMatchObject({ name: "second", status: "completed", attempts: 2, progress: 2 });
      const run = await backend.getRun(`workflow:${two}`);
      await expect.poll(async () => (await run.result()).status, { timeout: 10_000 }).toBe("retrying");
      expect(await run.result()).toMatchObject({ attempts: 1, error: { message: "not now" } });
      await run.cancel();
      expect(await run.result()).toMatchObject({ status: "cancelled", attempts: 1 });
      await backend.close();
    });

    test("what others wrote for Temporal is reached by reference: an activity, and a workflow where `native` says so", async () => {
      const [theirs, queue] = [newQueue(), newQueue()];
      const native = await NativeConnection.connect({ address });
      const worker = await Worker.create({
        connection: native,
        taskQueue: theirs,
        workflowsPath: fileURLToPath(new URL("fixtures/temporal-workflows.ts", import.meta.url)),
        activities: { shout: async (word: string, ...more: unknown[]) => `${word.toUpperCase()}!${more.length}` },
      });
      const running = worker.run();
      const shout = taskRef<string, string>({ name: "shout", queue: theirs });
      const temporalWorkflow = { temporal: { as: "workflow", workflow: { memo: { from: "ours" } } } } as const;
      const greet = taskRef<{ name: string }, string>({ name: "greetByHand", queue: theirs, native: temporalWorkflow });
      const both = defineWorkflow({
        name: "both",
        queue,
        handler: async (wf, name: string) => [await wf.run(shout, name), await wf.run(greet, { name })],
      });
      const backend = await open(address);
      backend.register(both);
      await backend.startWorker({ queues: [queue] });
      const greeting = await backend.submit(greet, { name: "ada" });
      expect(await Promise.all([(await backend.submit(shout, "hi")).output(), greeting.output()])).toEqual(["HI!0", "HELLO ADA!0"]);
      expect((await client.workflow.getHandle(greeting.id.replace("workflow:", "")).describe()).memo).toEqual({ from: "ours" });
      expect(await (await backend.submit(both, "bo")).output({ timeout: "15s" })).toEqual(["BO!0", "HELLO BO!0"]);
      await backend.close();
      worker.shutdown();
      await running;
      await native.close();
    });

    test("a codec and ready connections pass through: nothing is in clear, and the connections stay open", async () => {
      const queue = newQueue();
      const nativeConnection = await NativeConnection.connect({ address });
      const ready = temporal({ connection, nativeConnection, heartbeatTimeout: "3s", dataConverter: { payloadCodecs: [reversed] } });
      const backend = await createBackend(ready, { log: silentLogger });
      const failing = defineTask({
        name: "failing",
        retry: { attempts: 1 },
        handler: async (word: string) => Promise.reject(new Error(word)),
      });
      const asks = defineWorkflow({ name: "asks", queue, handler: async (wf, n: number) => wf.run(double, n, { queue }) });
      backend.register(double, failing, asks);
      await backend.startWorker({ queues: [queue] });
      const run = await backend.submit(asks, 4, { queue });
      expect(await run.output({ timeout: "15s" })).toBe(8);
      const failed = await backend.submit(failing, "secret-word", { queue });
      await expect(failed.output({ timeout: "15s" })).rejects.toThrow("secret-word");
      expect(await failed.result()).toMatchObject({ status: "failed", attempts: 1, error: { message: "secret-word" } });
      const raw = await client.workflow.getHandle(run.id.replace("workflow:", "")).fetchHistory();
      const input = raw.events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0];
      expect(input?.metadata?.["encoding"]).toEqual(Buffer.from("binary/reversed"));
      await backend.close();
      expect((await client.workflowService.getSystemInfo({})).serverVersion).toBeTruthy();
      await nativeConnection.close();
    });

    test("child workflows are child workflows; a step by reference reaches another queue", async () => {
      const [queue, other] = [newQueue(), newQueue()];
      const elsewhere = taskRef<number, number>({ name: "double", queue: other });
      const asks = defineWorkflow({ name: "asks", queue, handler: async (wf, n: number) => wf.run(elsewhere, n) });
      const backend = await open(address);
      backend.register(asks);
      await backend.startWorker({ queues: [queue, other, "default"] });
      expect(await (await backend.submit(nested, 1, { queue })).output({ timeout: "30s" })).toBe(9);
      expect(await (await backend.submit(asks, 3)).output({ timeout: "30s" })).toBe(6);
      await backend.close();
    });
  });

  killedAtEachStep(temporalUnderTest("temporal", address), 90_000);

  test("temporal restarts in the middle of 300 tasks and 20 workflows, and nothing is lost", async () => {
    const servers: Server[] = [];
    try {
      const server = await engine.start(engine.find() as string);
      servers.push(server);
      const own = server.env["TEMPORAL_ADDRESS"] as string;
      const [producer, worker] = [await open(own), await open(own)];
      const queue = "default";
      const tasks = await producer.submitMany(Array.from({ length: 300 }, (_, n) => ({ task: double, input: n, options: { queue } })));
      const workflows = await producer.submitMany(
        Array.from({ length: 20 }, (_, n) => ({ task: eightfold, input: n, options: { queue } })),
      );
      await worker.startWorker({ queues: [queue], concurrency: 20 });
      const outputs = Promise.all([...tasks, ...workflows].map((run: Run<number>) => run.output({ timeout: "150s" })));
      outputs.catch(() => {});
      await expect.poll(async () => (await (tasks[20] as Run).result()).status, { timeout: 30_000 }).toBe("completed");

      await stop(server, "SIGKILL");
      servers.push(await engine.start(engine.find() as string, { again: { folder: server.folder, port: Number(own.split(":")[1]) } }));

      expect(await outputs).toEqual([...tasks.map((_, n) => 2 * n), ...workflows.map((_, n) => 8 * n)]);
      await producer.close();
      await worker.close();
    } finally {
      for (const server of servers) await discard(server);
    }
  }, 200_000);

  test("a namespace that does not exist is told with the command that makes it", async () => {
    await expect(createBackend(temporal({ address, namespace: "nowhere" }))).rejects.toMatchObject({
      name: "ConfigurationError",
      message: expect.stringContaining("temporal operator namespace create --namespace nowhere") as string,
    });
  });
});

test("what cannot be is refused with the remedy, and secrets are not shown", async () => {
  expect(() => temporal({ url: "redis://host" })).toThrow(/must be temporal:\/\/host:port\/namespace/);
  expect(() => temporal({ wrong: 1 } as never)).toThrow(/They are url, address, namespace/);
  expect(() => temporal({ tls: { clientCertificate: "only.pem" } })).toThrow(/clientCertificate and tls.clientKey go together/);
  const failed = await createBackend(temporal({ address: "127.0.0.1:1", apiKey: "secret-word", tls: false }), {
    callTimeout: "4s",
    log: silentLogger,
  }).then(
    () => undefined,
    (error: Error) => error,
  );
  expect(failed).toMatchObject({ name: "BackendUnavailableError" });
  expect(failed?.message).not.toContain("secret-word");
});
