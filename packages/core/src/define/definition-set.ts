import { definitionKey, isDefinition, withPolicy, type Definition, type Runnable, type TaskPolicy } from "./definition.ts";
import { InvalidDefinitionError } from "../values/errors.ts";

/** Definitions by name and version, with the operator's policy over each. */
export class DefinitionSet {
  readonly #policies: Readonly<Record<string, TaskPolicy>>;
  readonly #entries = new Map<string, { given: Definition; definition: Definition; source: string }>();

  constructor(policies: Readonly<Record<string, TaskPolicy>> = {}) {
    this.#policies = policies;
  }

  /**
   * Adds a definition; the same object twice is one.
   * @param source where it came from, for the message: a file, or `register()`
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
    this.#entries.set(key, { given, definition: this.apply(given), source });
  }

  /** The same definitions and policy; what is added to one later is not in the other. */
  copy(): DefinitionSet {
    const copy = new DefinitionSet(this.#policies);
    for (const [key, entry] of this.#entries) copy.#entries.set(key, entry);
    return copy;
  }

  /** The definition with the operator's policy of its name over it. */
  apply<D extends Runnable<never, unknown>>(definition: D): D {
    return withPolicy(definition, Object.hasOwn(this.#policies, definition.name) ? this.#policies[definition.name] : undefined);
  }

  /** By name; of several versions of a workflow, the one registered last unless `version` is given. */
  find(name: string, version?: string): Definition | undefined {
    const exact = this.#entries.get(name) ?? (version === undefined ? undefined : this.#entries.get(`${name}@${version}`));
    if (exact || version !== undefined) return exact?.definition;
    return this.all.findLast((definition) => definition.name === name);
  }

  get all(): readonly Definition[] {
    return [...this.#entries.values()].map((entry) => entry.definition);
  }

  #ofOtherKind(given: Definition) {
    return [...this.#entries.values()].find(({ definition }) => definition.name === given.name && definition.kind !== given.kind);
  }
}

function describe(value: unknown): string {
  if (typeof value === "object" && value !== null && "kind" in value) return `a ${String(value.kind)}`;
  return value === null ? "null" : `a ${typeof value}`;
}
