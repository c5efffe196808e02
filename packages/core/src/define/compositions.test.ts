import { expect, test } from "vitest";
import type { Json } from "../values/json.ts";
import { simulate } from "../testing/simulation.ts";
import { chain } from "./chain.ts";
import { dag } from "./dag.ts";
import type { WorkflowDefinition } from "./definition.ts";
import { defineTask } from "./task.ts";

const text = defineTask({ name: "text", handler: (n: unknown) => String(n) });
const join = defineTask({ name: "join", handler: ({ a, b }: { a: string; b: string }) => `${a},${b}` });

async function resultOf(workflow: WorkflowDefinition, input: Json, step: (name: string, given: Json) => unknown = (_name, given) => given) {
  return (await simulate(workflow, input, { seed: 1, step })).result;
}

const oops = (): never => {
  throw new TypeError("oops");
};

test("a dag's node that reads the output of one it does not come after fails the run, and both are named", async () => {
  const reads = dag("reads", {
    a: { task: text, input: () => 1 },
    b: { task: text, input: () => 2 },
    total: { task: join, after: ["a"], input: ({ a, b }) => ({ a, b }) },
  });
  const message = 'The input of node "total" of dag "reads" reads the output of "b", which it does not come after; add "b" to its `after`.';
  expect(await resultOf(reads, null)).toMatchObject({
    do: "settle",
    status: "failed",
    error: { code: "INVALID_ARGUMENT", step: "total", message },
  });
  const itself = dag("itself", { a: { task: text, input: (outputs) => (outputs as { a: unknown }).a } });
  expect(await resultOf(itself, null)).toMatchObject({ error: { message: expect.stringMatching(/reads its own output/) as string } });
  const copies = dag("copies", {
    a: { task: text, input: () => 1 },
    b: { task: join, after: ["a"], input: (outputs) => ({ ...outputs }) },
  });
  expect(await resultOf(copies, null), "what is only spread reads nothing").toMatchObject({ do: "complete", output: { b: { a: 1 } } });
});

test("an input that throws fails the run and names its node or step, whatever it throws", async () => {
  for (const thrown of [new TypeError("oops"), "oops", Object.freeze(new Error("oops"))]) {
    const throws = (): never => {
      throw thrown as Error;
    };
    const graph = dag("graph", { a: { task: text, input: () => 1 }, total: { task: text, after: ["a"], input: throws } });
    expect(await resultOf(graph, null)).toMatchObject({ status: "failed", error: { message: "oops", step: "total" } });
    expect(await resultOf(chain("row", [text, [text, throws]]), null)).toMatchObject({
      status: "failed",
      error: { message: "oops", step: "text" },
    });
  }
});

test("a failing task of a node is named by the node, a failing step by its task", async () => {
  const fails = (name: string): unknown => (name === "text" ? oops() : null);
  expect(await resultOf(dag("graph", { node: { task: text } }), 1, fails)).toMatchObject({ error: { name: "TypeError", step: "node" } });
  expect(await resultOf(chain("row", [text]), 1, fails)).toMatchObject({ error: { name: "TypeError", step: "text" } });
  expect(await resultOf(chain("row", [text, [text, () => new Date()]]), 1)).toMatchObject({
    error: { code: "INVALID_PAYLOAD", step: "text" },
  });
});

test("what stands beside the first task of a chain goes over the chain's input", async () => {
  const given: Json[] = [];
  const step = (_name: string, input: Json): Json => {
    given.push(input);
    return input;
  };
  await resultOf(chain("extra", [[join, { a: "1" }]]), { b: "2" }, step);
  await resultOf(chain("whole", [[join, { a: "1", b: "2" }]]), null, step);
  await resultOf(chain("mapped", [[join, (input: { x: string }) => ({ a: input.x, b: input.x })], text]), { x: "3" }, step);
  expect(given).toEqual([
    { b: "2", a: "1" },
    { a: "1", b: "2" },
    { a: "3", b: "3" },
    { a: "3", b: "3" },
  ]);
});
