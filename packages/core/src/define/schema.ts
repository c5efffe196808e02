import type { StandardSchemaV1 } from "@standard-schema/spec";
import { InvalidDefinitionError, InvalidInputError, type InputIssue } from "../values/errors.ts";
import { show } from "../values/show.ts";

/** Any Standard Schema: zod, valibot, arktype and others. */
export type Schema = StandardSchemaV1;

/**
 * Parses a value with the schema.
 * @throws InvalidInputError with the path and message of each issue; InvalidDefinitionError when it is no schema; any error of the schema itself
 */
export async function parseInput(schema: Schema | undefined, value: unknown, name: string): Promise<unknown> {
  if (!schema) return value;
  const result: unknown = await schema["~standard"].validate(value);
  if (typeof result !== "object" || result === null) throw noSchema(name, `gave ${show(result)}`);
  const { issues } = result as StandardSchemaV1.FailureResult;
  if (!issues) return (result as StandardSchemaV1.SuccessResult<unknown>).value;
  if (!Array.isArray(issues)) throw noSchema(name, `gave issues that are ${show(issues)}`);
  throw new InvalidInputError(name, issues.map(issueOf));
}

function noSchema(name: string, what: string): InvalidDefinitionError {
  return new InvalidDefinitionError(`The schema of "${name}" ${what}; a Standard Schema gives { value } or { issues: [{ message }] }.`);
}

function issueOf(issue: StandardSchemaV1.Issue): InputIssue {
  const path = Array.isArray(issue?.path) ? (issue.path as readonly unknown[]) : [];
  const keys = path.map((part) => (typeof part === "object" && part !== null ? (part as { key?: unknown }).key : part));
  return {
    path: ["$", ...keys.map((key) => (typeof key === "symbol" || typeof key === "string" ? String(key) : show(key)))].join("."),
    message: typeof issue?.message === "string" ? issue.message : "does not fit",
  };
}
