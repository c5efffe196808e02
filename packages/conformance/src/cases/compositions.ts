import assert from "node:assert/strict";
import { chain, dag, defineTask, defineWorkflow, InvalidDefinitionError } from "@task-backend/core";
import { boom, increment, settled, workflowCasesOf } from "./common.ts";

const rule28 = workflowCasesOf(28);

export const compositionCases = [
  rule28("each step of a chain gets the previous output, merged or mapped where it says so", async (t) => {
    const inputs: unknown[] = [];
    const note = <T>(value: T): T => {
      inputs.push(value);
      return value;
    };
    const first = defineTask({
      name: "first",
      queue: t.queue,
      handler: async ({ source }: { source: string }) => ({ rows: [note(source)] }),
    });
    const second = defineTask({
      name: "second",
      queue: t.queue,
      handler: async (input: { rows: string[]; target: string }) => note(input).rows.length,
    });
    const third = defineTask({ name: "third", queue: t.queue, handler: async (input: { count: number }) => note(input) });
    const pipeline = chain("pipeline", [first, [second, { target: "warehouse" }], [third, (count) => ({ count: count + 1 })]]);
    const { backend } = await t.serve([first, second, third, pipeline]);
    assert.equal(pipeline.queue, t.queue);
    assert.deepEqual(await (await backend.submit(pipeline, { source: "db" })).output({ timeout: "15s" }), { count: 2 });
    assert.deepEqual(inputs, ["db", { rows: ["db"], target: "warehouse" }, { count: 2 }]);
  }),
  rule28("a failing step settles the chain, and later ones never run", async (t) => {
    const never = defineTask({ name: "never", queue: t.queue, handler: async (_: unknown) => t.note("ran") });
    const pipeline = chain("failing_chain", [increment, boom, never] as never, { queue: t.queue });
    const routed = defineWorkflow({
      name: "routed",
      queue: t.queue,
      handler: async (wf) => {
        await wf.run(increment, 1, { queue: t.queue });
        await wf.run(boom, null, { queue: t.queue });
        await wf.run(never, null);
      },
    });
    const { backend } = await t.serve([increment, boom, never, routed, pipeline], { queues: [t.queue, "default"] });
    for (const run of [await backend.submit(routed, null), await backend.submit("failing_chain", 1)]) {
      const result = await settled(run);
      assert.ok(result.status === "failed");
      assert.equal(result.error.step, "boom");
    }
    assert.deepEqual(t.lines(), []);
  }),
  rule28("a dag runs independent nodes in parallel and gathers their outputs", async (t) => {
    let together = 0;
    let most = 0;
    const meet = defineTask({
      name: "meet",
      queue: t.queue,
      handler: async (n: number) => {
        most = Math.max(most, ++together);
        await t.until("the other node to start", () => most === 2);
        together--;
        return n * 10;
      },
    });
    const sum = defineTask({ name: "sum", queue: t.queue, handler: async (numbers: number[]) => numbers.reduce((a, b) => a + b, 0) });
    const graph = dag("diamond", {
      left: { task: meet, input: (_outputs, n: number) => n },
      right: { task: meet, input: (_outputs, n: number) => n + 1 },
      total: { task: sum, after: ["left", "right"], input: ({ left, right }) => [left, right] },
    });
    const { backend } = await t.serve([meet, sum, graph]);
    assert.deepEqual(await (await backend.submit(graph, 1)).output({ timeout: "15s" }), { left: 10, right: 20, total: 30 });
  }),
  rule28("dependents of a failed node never run, the others finish, and the run fails naming the node's task", async (t) => {
    const note = defineTask({ name: "note", queue: t.queue, handler: async (line: string) => t.note(line) });
    const failing = defineTask({
      name: "failing_node",
      queue: t.queue,
      retry: { attempts: 1 },
      handler: async () => Promise.reject(new Error("node")),
    });
    const graph = dag("partial", {
      bad: { task: failing, input: () => null },
      dependent: { task: note, after: ["bad"], input: () => "dependent" },
      first: { task: note, input: () => "first" },
      second: { task: note, after: ["first"], input: () => "second" },
    });
    const { backend } = await t.serve([note, failing, graph]);
    const result = await settled(await backend.submit(graph, null));
    assert.ok(result.status === "failed");
    assert.equal(result.error.step, "bad");
    assert.deepEqual(t.lines(), ["first", "second"]);
  }),
  rule28("cycles and unknown nodes are refused where the dag is defined, naming them", async () => {
    const node = { task: increment, input: () => 1 };
    assert.throws(
      () => dag("cyclic", { a: { ...node, after: ["c"] }, b: { ...node, after: ["a"] }, c: { ...node, after: ["b"] } }),
      (error) => error instanceof InvalidDefinitionError && /a -> c -> b -> a/.test(error.message),
    );
    assert.throws(
      () => dag("unknown", { a: { ...node, after: ["nowhere"] } } as never),
      (error) => error instanceof InvalidDefinitionError && /"nowhere"/.test(error.message),
    );
  }),
];
