import {
  brand,
  checkPolicy,
  definitionKey,
  isBranded,
  isDefinition,
  withPolicy,
  type Definition,
  type Runnable,
  type TaskPolicy,
} from "./definition.ts";
import { InvalidArgumentError, InvalidDefinitionError } from "../values/errors.ts";
import { isPlainObject, show } from "../values/show.ts";
import { nearest } from "./checks.ts";

/** Definitions by name and version, with the operator's policies applied. */
export class DefinitionSet {
  readonly #policies: Readonly<Record<string, TaskPolicy>>;
  readonly #entries = new Map<string, { given: Definition; definition: Definition; source: string }>();
  /** The results of `apply`: the same for the same object, until a definition is added. */
  #applied = new WeakMap<object, Runnable<never, unknown>>();

  /** @throws InvalidArgumentError for an invalid policy */
  constructor(policies: Readonly<Record<string, TaskPolicy>> = {}) {
    checkPolicies(policies);
    this.#policies = policies;
  }

  /**
   * Adds a definition. Adding the same object again changes nothing.
   * @param source where the definition came from, for the message: a file, or `register()`
   * @throws InvalidDefinitionError for another definition of the same name and version
   */
  add(given: Definition, source: string): void {
    if (!isDefinition(given)) {
      throw new InvalidDefinitionError(`${source} was given ${describe(given)}; give what defineTask, defineWorkflow, chain or dag made.`);
    }
    const key = definitionKey(given);
    const other = this.#entries.get(key) ?? this.#ofOtherKind(given);
    if (other && other.given !== given) {
      throw new InvalidDefinitionError(
        `"${key}" is defined twice: in ${other.source} and in ${source}; rename one, or give a workflow another version.`,
      );
    }
    this.#entries.set(key, { given, definition: withPolicy(given, this.#policy(given.name)), source });
    this.#applied = new WeakMap();
  }

  /** A copy with the same definitions and policies; later additions to one are not in the other. */
  copy(): DefinitionSet {
    const copy = new DefinitionSet(this.#policies);
    for (const [key, entry] of this.#entries) copy.#entries.set(key, entry);
    return copy;
  }

  /**
   * The definition to submit or run as a step, with the operator's policy for its name applied. A ref becomes the definition that it
   * names, if that is known here. It stays a ref when it names another queue: its code is then elsewhere.
   */
  apply(given: Runnable<never, unknown>): Runnable<never, unknown> {
    const before = this.#applied.get(given);
    if (before) return before;
    const applied = withPolicy(this.#resolve(given), this.#policy(given.name));
    this.#applied.set(given, applied);
    return applied;
  }

  #resolve(given: Runnable<never, unknown>): Runnable<never, unknown> {
    const known = given.kind === "ref" ? this.#byName(given.name)?.given : undefined;
    if (!known || (given.queue ?? known.queue) !== known.queue) return given;
    const { priority, native } = given;
    return brand({ ...known, ...(priority !== undefined && { priority }), ...(native && { native: { ...known.native, ...native } }) });
  }

  #policy(name: string): TaskPolicy | undefined {
    return Object.hasOwn(this.#policies, name) ? this.#policies[name] : undefined;
  }

  /** Names that have a policy and no definition here, each with the most similar defined name. */
  get unknownPolicies(): readonly { name: string; similar: string | undefined }[] {
    const names = this.all.map(({ name }) => name);
    const unknown = Object.keys(this.#policies).filter((name) => !names.includes(name));
    return unknown.map((name) => ({ name, similar: nearest(name, names) }));
  }

  /** Finds a definition by name. Of several versions of a workflow it is the one registered last, unless `version` is given. */
  find(name: string, version?: string): Definition | undefined {
    return this.#byName(name, version)?.definition;
  }

  #byName(name: string, version?: string): { given: Definition; definition: Definition } | undefined {
    const exact = this.#entries.get(name) ?? (version === undefined ? undefined : this.#entries.get(`${name}@${version}`));
    if (exact || version !== undefined) return exact;
    return [...this.#entries.values()].findLast(({ definition }) => definition.name === name);
  }

  get all(): readonly Definition[] {
    return [...this.#entries.values()].map((entry) => entry.definition);
  }

  #ofOtherKind(given: Definition) {
    return [...this.#entries.values()].find(({ definition }) => definition.name === given.name && definition.kind !== given.kind);
  }
}

function describe(value: unknown): string {
  return isBranded(value) ? `a ${value.kind}` : show(value);
}

/** @throws InvalidArgumentError naming the task and the invalid option of its policy */
export function checkPolicies(policies: Readonly<Record<string, TaskPolicy>>): void {
  if (!isPlainObject(policies)) throw new InvalidArgumentError(`tasks is ${show(policies)}; give an object of policies by task name.`);
  for (const [name, policy] of Object.entries(policies)) checkPolicy(policy, name);
}
