import { isBranded, type Runnable, type WorkflowDefinition } from "./definition.ts";
import { InvalidArgumentError, InvalidDefinitionError } from "../values/errors.ts";
import { fromStep } from "../values/origin.ts";
import { isPlainObject, show } from "../values/show.ts";
import { checkCompositionOptions, type ChainOptions } from "./chain.ts";
import { checkKey, checkOptions } from "./checks.ts";
import { defineWorkflow, type WorkflowContext } from "./workflow.ts";

type Tasks = Readonly<Record<string, Runnable<never, unknown>>>;
type InputOf<R> = R extends Runnable<infer In, unknown> ? In : never;
type OutputOf<R> = R extends Runnable<never, infer Out> ? Out : never;
type OutputsOf<T> = { readonly [K in keyof T]: OutputOf<T[K]> };

/** The nodes of a `dag`, by name. */
export type DagNodes<In, T extends Tasks> = {
  readonly [K in keyof T]: {
    readonly task: T[K];
    /** The nodes whose outputs this node needs; it starts when all of them have completed. */
    readonly after?: readonly (keyof T & string)[];
    /**
     * The node's input, computed from the outputs of the nodes in `after` and the input of the workflow.
     * Default: the input of the workflow without `after`; the output of a single node; otherwise an object of outputs by node.
     */
    readonly input?: (outputs: OutputsOf<T>, input: In) => InputOf<T[K]>;
  };
};

/**
 * A workflow of nodes. A node runs as soon as the nodes in its `after` have completed; independent nodes run in parallel.
 * Its output is an object of each node's output. When a node fails, the nodes that depend on it never run, the others finish,
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
  checkCompositionOptions(options, `Dag ${show(name)}`);
  checkGraph(name, graph);
  const { queue = Object.values(graph)[0]?.task.queue, version } = options;
  return defineWorkflow({
    name,
    ...(queue !== undefined && { queue }),
    ...(version !== undefined && { version }),
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
        failures.push(fromStep(error, name));
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
    const own = gather
      ? gather(withGuards(byName, workflow.name, name, Object.keys(graph)), input)
      : after.length === 0
        ? input
        : after.length === 1
          ? outputs[0]
          : byName;
    return workflow.run(task, own);
  };
  const names = Object.keys(graph);
  const outputs = await Promise.all(names.map(start));
  if (failures.length > 0) throw failures[0];
  return Object.fromEntries(names.map((name, index) => [name, outputs[index]]));
}

/**
 * The outputs that a node's input may read. Reading the output of any other node throws: a plain `undefined` would hide the mistake,
 * because that node may have run by then or not.
 */
function withGuards(outputs: Record<string, unknown>, dagName: string, node: string, names: readonly string[]): Record<string, unknown> {
  for (const other of names) {
    if (Object.hasOwn(outputs, other)) continue;
    Object.defineProperty(outputs, other, {
      get: (): never => {
        const itself = other === node ? "its own output" : `the output of "${other}", which it does not come after`;
        const remedy = other === node ? "read those of the nodes in its `after`" : `add "${other}" to its \`after\``;
        throw new InvalidArgumentError(`The input of node "${node}" of dag "${dagName}" reads ${itself}; ${remedy}.`);
      },
    });
  }
  return outputs;
}

function checkGraph(name: string, graph: Graph): void {
  const dagName = `dag ${show(name)}`;
  if (!isPlainObject(graph))
    throw new InvalidDefinitionError(`The nodes of ${dagName} are ${show(graph)}; give an object of nodes by name.`);
  const names = Object.keys(graph);
  if (names.length === 0) throw new InvalidDefinitionError(`D${dagName.slice(1)} has no nodes; give at least one.`);
  for (const [node, given] of Object.entries(graph)) {
    checkKey(node, `The name of a node of ${dagName}`, InvalidDefinitionError);
    const where = `Node ${show(node)} of ${dagName}`;
    checkOptions(given, ["task", "after", "input"], where, InvalidDefinitionError);
    const { task, after = [], input } = given;
    if (!isBranded(task)) throw new InvalidDefinitionError(`${where} has no task; give \`task\`.`);
    if (!Array.isArray(after)) throw new InvalidDefinitionError(`${where}: after is ${show(after)}; give an array of names of nodes.`);
    if (input !== undefined && typeof input !== "function")
      throw new InvalidDefinitionError(`${where}: input is ${show(input)}; give a function of the outputs and the input of the dag.`);
    const unknown = after.filter((other: string) => !Object.hasOwn(graph, other));
    if (unknown.length > 0)
      throw new InvalidDefinitionError(`${where} comes after unknown ${unknown.map(show).join(", ")}; its nodes are ${names.join(", ")}.`);
  }
  const done = new Set<string>();
  const visit = (node: string, trail: readonly string[]): void => {
    if (done.has(node)) return;
    if (trail.includes(node)) {
      throw new InvalidDefinitionError(`D${dagName.slice(1)} has a cycle: ${[...trail.slice(trail.indexOf(node)), node].join(" -> ")}.`);
    }
    for (const other of graph[node]?.after ?? []) visit(other, [...trail, node]);
    done.add(node);
  };
  for (const node of names) visit(node, []);
}
