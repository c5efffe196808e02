import { isBranded, type Runnable, type WorkflowDefinition } from "./definition.ts";
import { InvalidDefinitionError, TaskFailedError, TaskTimedOutError } from "../values/errors.ts";
import type { ChainOptions } from "./chain.ts";
import { defineWorkflow, type WorkflowContext } from "./workflow.ts";

type Tasks = Readonly<Record<string, Runnable<never, unknown>>>;
type InputOf<R> = R extends Runnable<infer In, unknown> ? In : never;
type OutputOf<R> = R extends Runnable<never, infer Out> ? Out : never;
type OutputsOf<T> = { readonly [K in keyof T]: OutputOf<T[K]> };

/** The nodes of a `dag`, by name. */
export type DagNodes<In, T extends Tasks> = {
  readonly [K in keyof T]: {
    readonly task: T[K];
    /** The nodes whose outputs it needs; it starts when all of them have completed. */
    readonly after?: readonly (keyof T & string)[];
    /**
     * Its input, from the outputs of the nodes in `after` and the input of the workflow.
     * Default: the input of the workflow without `after`; the output of a single node; otherwise an object of outputs by node.
     */
    readonly input?: (outputs: OutputsOf<T>, input: In) => InputOf<T[K]>;
  };
};

/**
 * A workflow of nodes that run as soon as what they come after has completed; independent nodes run in parallel.
 * Its output is an object of each node's output. When nodes fail, what depends on them never runs, the others finish,
 * and the run fails with `error.step` naming the node that failed first.
 * @throws InvalidDefinitionError for a cycle or an unknown node, naming them
 * @example
 * export const report = dag("report", {
 *   sales: { task: loadSales, input: (_outputs, month: string) => ({ month }) },
 *   costs: { task: loadCosts, input: (_outputs, month: string) => ({ month }) },
 *   total: { task: sum, after: ["sales", "costs"], input: ({ sales, costs }) => [sales, costs] },
 * });
 */
export function dag<In, T extends Tasks>(
  name: string,
  nodes: DagNodes<In, T>,
  options: ChainOptions = {},
): WorkflowDefinition<In, OutputsOf<T>> {
  const graph = nodes as unknown as Graph;
  checkGraph(name, graph);
  return defineWorkflow({
    name,
    queue: options.queue ?? Object.values(graph)[0]?.task.queue ?? "default",
    ...(options.version !== undefined && { version: options.version }),
    handler: (workflow, input: In) => runGraph(workflow, graph, input) as Promise<OutputsOf<T>>,
  });
}

interface Node {
  readonly task: Runnable<unknown, unknown>;
  readonly after?: readonly string[];
  readonly input?: (outputs: unknown, input: unknown) => unknown;
}

type Graph = Readonly<Record<string, Node>>;

const SKIPPED = Symbol("skipped");

async function runGraph(workflow: WorkflowContext, graph: Graph, input: unknown): Promise<Record<string, unknown>> {
  const started = new Map<string, Promise<unknown>>();
  const failures: unknown[] = [];
  const start = (name: string): Promise<unknown> => {
    let node = started.get(name);
    if (!node) {
      node = runNode(name).catch((error: unknown) => {
        failures.push(named(error, name));
        return SKIPPED;
      });
      started.set(name, node);
    }
    return node;
  };
  const runNode = async (name: string): Promise<unknown> => {
    const { task, after = [], input: gather } = graph[name] as Node;
    const outputs = await Promise.all(after.map(start));
    if (outputs.includes(SKIPPED)) return SKIPPED;
    const byName = Object.fromEntries(after.map((node, index) => [node, outputs[index]]));
    const own = gather ? gather(byName, input) : after.length === 0 ? input : after.length === 1 ? outputs[0] : byName;
    return workflow.run(task, own);
  };
  const names = Object.keys(graph);
  const outputs = await Promise.all(names.map(start));
  if (failures.length > 0) throw failures[0];
  return Object.fromEntries(names.map((name, index) => [name, outputs[index]]));
}

/** The failure of a task, under the name of its node. */
function named(error: unknown, node: string): unknown {
  if (!(error instanceof TaskFailedError)) return error;
  return new (error instanceof TaskTimedOutError ? TaskTimedOutError : TaskFailedError)(node, error.runId, error.failure);
}

function checkGraph(name: string, graph: Graph): void {
  const names = Object.keys(graph);
  if (names.length === 0) throw new InvalidDefinitionError(`Dag "${name}" has no nodes; give at least one.`);
  for (const [node, { task, after = [] }] of Object.entries(graph)) {
    if (!isBranded(task)) throw new InvalidDefinitionError(`Node "${node}" of dag "${name}" has no task; give \`task\`.`);
    const unknown = after.filter((other) => !Object.hasOwn(graph, other));
    if (unknown.length > 0) {
      throw new InvalidDefinitionError(
        `Node "${node}" of dag "${name}" comes after unknown ${unknown.map((other) => `"${other}"`).join(", ")}; its nodes are ${names.join(", ")}.`,
      );
    }
  }
  const done = new Set<string>();
  const visit = (node: string, trail: readonly string[]): void => {
    if (done.has(node)) return;
    if (trail.includes(node)) {
      throw new InvalidDefinitionError(`Dag "${name}" has a cycle: ${[...trail.slice(trail.indexOf(node)), node].join(" -> ")}.`);
    }
    for (const other of graph[node]?.after ?? []) visit(other, [...trail, node]);
    done.add(node);
  };
  for (const node of names) visit(node, []);
}
