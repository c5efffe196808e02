import { isBranded, type Runnable, type WorkflowDefinition } from "./definition.ts";
import { InvalidDefinitionError } from "./errors.ts";
import type { ChainOptions } from "./chain.ts";
import { defineWorkflow, type WorkflowContext } from "./workflow.ts";

/** One node of a `dag`. */
export interface DagNode<In = never, Out = unknown> {
  task: Runnable<In, Out>;
  /** The nodes whose outputs it needs; it starts when all of them have completed. */
  after?: readonly string[];
  /**
   * Its input, from the outputs of the nodes in `after` and the workflow's own input.
   * Default: the workflow's input without `after`; the output of a single node; otherwise an object of outputs by node name.
   */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- outputs are typed by node in DagInput
  input?: (outputs: never, input: never) => unknown;
}

type OutputOf<N> = N extends { task: Runnable<never, infer Out> } ? Out : never;
type Outputs<N> = { readonly [K in keyof N]: OutputOf<N[K]> };

type Checked<N, In> = {
  readonly [K in keyof N]: N[K] extends { task: Runnable<infer NodeIn, unknown> }
    ? { task: N[K]["task"]; after?: readonly (keyof N & string)[]; input?: (outputs: Outputs<N>, input: In) => NodeIn }
    : never;
};

/**
 * A workflow of nodes that run as soon as what they come after has completed; independent nodes run in parallel.
 * Its output is an object of each node's output. When nodes fail, what depends on them never runs, the others finish,
 * and the run fails naming the first that failed.
 * @throws InvalidDefinitionError for a cycle or an unknown node, naming them
 * @example
 * export const report = dag("report", {
 *   sales: { task: loadSales },
 *   costs: { task: loadCosts },
 *   total: { task: sum, after: ["sales", "costs"], input: ({ sales, costs }) => [sales, costs] },
 * });
 */
export function dag<In, const N extends Readonly<Record<string, DagNode>> = Readonly<Record<string, DagNode>>>(
  name: string,
  nodes: N & Checked<N, In>,
  options: ChainOptions = {},
): WorkflowDefinition<In, Outputs<N>> {
  const graph = nodes as Readonly<Record<string, DagNode>>;
  checkGraph(name, graph);
  return defineWorkflow({
    name,
    queue: options.queue ?? Object.values(graph)[0]?.task.queue ?? "default",
    ...(options.version !== undefined && { version: options.version }),
    handler: (workflow, input: In) => runGraph(workflow, graph, input) as Promise<Outputs<N>>,
  });
}

const SKIPPED = Symbol("skipped");

async function runGraph(
  workflow: WorkflowContext,
  graph: Readonly<Record<string, DagNode>>,
  input: unknown,
): Promise<Record<string, unknown>> {
  const started = new Map<string, Promise<unknown>>();
  const failures: unknown[] = [];
  const start = (name: string): Promise<unknown> => {
    let node = started.get(name);
    if (!node) {
      node = runNode(name).catch((error: unknown) => {
        failures.push(error);
        return SKIPPED;
      });
      started.set(name, node);
    }
    return node;
  };
  const runNode = async (name: string): Promise<unknown> => {
    const { task, after = [], input: gather } = graph[name] as DagNode;
    const outputs = await Promise.all(after.map(start));
    if (outputs.includes(SKIPPED)) return SKIPPED;
    const byName = Object.fromEntries(after.map((node, index) => [node, outputs[index]]));
    const own = gather ? gather(byName as never, input as never) : after.length === 0 ? input : after.length === 1 ? outputs[0] : byName;
    return workflow.run(task as Runnable<unknown, unknown>, own);
  };
  const names = Object.keys(graph);
  const outputs = await Promise.all(names.map(start));
  if (failures.length > 0) throw failures[0];
  return Object.fromEntries(names.map((name, index) => [name, outputs[index]]));
}

function checkGraph(name: string, graph: Readonly<Record<string, DagNode>>): void {
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
