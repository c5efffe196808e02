import { expectTypeOf, test } from "vitest";
import { z } from "zod";
import * as v from "valibot";
import {
  chain,
  dag,
  defineTask,
  defineWorkflow,
  taskRef,
  type Run,
  type TaskBackend,
  type TaskResult,
  type WorkflowDefinition,
} from "./index.ts";

declare const backend: TaskBackend;

const extract = defineTask({
  name: "extract",
  input: z.object({ source: z.string() }),
  handler: async ({ source }) => ({ rows: [source] }),
});
const transform = defineTask({ name: "transform", handler: async ({ rows }: { rows: string[] }) => ({ total: rows.length }) });
const load = taskRef<{ total: number; target: string }, { loaded: boolean }>({ name: "load" });
const scale = defineTask({ name: "scale", handler: async (n: number) => n * 2 });

test("input and output come from the definition", () => {
  expectTypeOf(backend.submit(extract, { source: "db" })).resolves.toEqualTypeOf<Run<{ rows: string[] }>>();
  expectTypeOf(backend.getResult("id", extract)).resolves.toEqualTypeOf<TaskResult<{ rows: string[] }>>();
  // @ts-expect-error a wrong property
  void backend.submit(extract, { sauce: "db" });
  // @ts-expect-error a wrong type
  void backend.submit(extract, { source: 1 });
});

test("a schema with a transform: the producer gives what goes in, the handler gets what comes out", () => {
  const dated = defineTask({
    name: "dated",
    input: z.object({ at: z.string().transform((text) => new Date(text)) }),
    handler: async ({ at }) => {
      expectTypeOf(at).toEqualTypeOf<Date>();
    },
  });
  void backend.submit(dated, { at: "2030-01-01" });
  // @ts-expect-error the parsed type is not what is submitted
  void backend.submit(dated, { at: new Date() });
});

test("any Standard Schema will do", () => {
  const checked = defineTask({ name: "checked", input: v.object({ n: v.number() }), handler: ({ n }) => n });
  expectTypeOf(backend.submit(checked, { n: 1 })).resolves.toEqualTypeOf<Run<number>>();
  // @ts-expect-error a wrong type
  void backend.submit(checked, { n: "1" });
});

test("a result is told apart by its status", () => {
  const result = {} as TaskResult<number>;
  if (result.status === "completed") expectTypeOf(result.output).toEqualTypeOf<number>();
  // @ts-expect-error only completed runs have an output
  void result.output;
  if (result.status === "failed") expectTypeOf(result.error.code).toEqualTypeOf<string>();
});

test("the steps of a chain fit each other, or do not compile", () => {
  const pipeline = chain("pipeline", [extract, transform, [load, { target: "warehouse" }]]);
  expectTypeOf(pipeline).toExtend<WorkflowDefinition<{ source: string }, { loaded: boolean }>>();
  expectTypeOf(backend.submit(pipeline, { source: "db" })).resolves.toEqualTypeOf<Run<{ loaded: boolean }>>();
  const mapped = chain("mapped", [extract, transform, [scale, (previous) => previous.total], [load, (total) => ({ total, target: "x" })]]);
  expectTypeOf(mapped).toExtend<WorkflowDefinition<{ source: string }, { loaded: boolean }>>();
  // @ts-expect-error scale takes a number
  chain("wrong", [extract, scale]);
  // @ts-expect-error load needs a target
  chain("missing", [extract, transform, load]);
  // @ts-expect-error the extra is of the wrong type
  chain("extra", [extract, transform, [load, { target: 1 }]]);
  // @ts-expect-error extra properties cannot be merged into a number
  chain("scalar", [transform, [scale, { by: 2 }]]);
  // @ts-expect-error the function returns another type than the step takes
  chain("function", [extract, transform, [scale, (previous) => String(previous.total)]]);
});

test("the first step of a chain may have properties beside it, or a function of the chain's input", () => {
  const whole = chain("whole", [[extract, { source: "database" }], transform, [load, { target: "warehouse" }]]);
  expectTypeOf(whole).toExtend<WorkflowDefinition<null, { loaded: boolean }>>();
  void backend.submit(whole, null);
  const part = chain("part", [
    [load, { target: "warehouse" }],
    [scale, ({ loaded }) => Number(loaded)],
  ]);
  expectTypeOf(backend.submit(part, { total: 1 })).resolves.toEqualTypeOf<Run<number>>();
  // @ts-expect-error the rest of the first task's input is still needed
  void backend.submit(part, { target: "warehouse" });
  const mapped = chain("mapped", [[extract, (order: { database: string }) => ({ source: order.database })], transform]);
  expectTypeOf(backend.submit(mapped, { database: "db" })).resolves.toEqualTypeOf<Run<{ total: number }>>();
  // @ts-expect-error the function takes a database
  void backend.submit(mapped, { source: "db" });
  const only = chain("only", [[scale, (text: string) => text.length]]);
  expectTypeOf(backend.submit(only, "text")).resolves.toEqualTypeOf<Run<number>>();
  const mode = taskRef<{ mode: "fast" | "slow"; rows: string[] }, null>({ name: "mode" });
  chain("literal", [[mode, { mode: "fast", rows: ["a"] }]]);
  // @ts-expect-error no such mode
  chain("literal", [[mode, { mode: "quick" }]]);
  // @ts-expect-error the extra is of the wrong type
  chain("wrong", [[extract, { source: 1 }], transform]);
  // @ts-expect-error extract takes no such property
  chain("unknown", [[extract, { source: "db", sauce: "db" }], transform]);
  // @ts-expect-error properties cannot be merged into a number
  chain("scalar", [[scale, { by: 2 }]]);
  // @ts-expect-error the function returns another type than the first task takes
  chain("function", [[extract, (order: { database: string }) => ({ sauce: order.database })], transform]);
});

test("the nodes of a dag get the outputs of others", () => {
  const graph = dag("graph", {
    rows: { task: extract, input: (_outputs, source: string) => ({ source }) },
    total: { task: transform, after: ["rows"] },
    twice: { task: scale, after: ["total"], input: ({ total }) => total.total },
  });
  expectTypeOf(backend.submit(graph, "db")).resolves.toEqualTypeOf<
    Run<{ readonly rows: { rows: string[] }; readonly total: { total: number }; readonly twice: number }>
  >();
  // @ts-expect-error an unknown node
  dag("unknown", { rows: { task: extract, after: ["nowhere"] } });
  // @ts-expect-error scale takes a number
  dag("wrong", { rows: { task: extract }, twice: { task: scale, after: ["rows"], input: ({ rows }) => rows.rows } });
});

test("wf.run is typed by its task", () => {
  defineWorkflow({
    name: "typed",
    input: z.object({ n: z.number() }),
    handler: async (wf, { n }) => {
      expectTypeOf(await wf.run(scale, n)).toEqualTypeOf<number>();
      expectTypeOf(await wf.waitForSignal<{ ok: boolean }>("approved")).toEqualTypeOf<{ ok: boolean }>();
      // @ts-expect-error a wrong input
      await wf.run(scale, "one");
    },
  });
});

test("definitions with a wrong option do not compile", () => {
  // @ts-expect-error no such priority
  defineTask({ name: "p", priority: "highest", handler: async () => 1 });
  // @ts-expect-error no such unit
  defineTask({ name: "d", timeout: "3 weeks", handler: async () => 1 });
});
