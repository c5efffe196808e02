import type { StandardSchemaV1 } from "@standard-schema/spec";
import { InvalidInputError } from "../values/errors.ts";

/** Any Standard Schema: zod, valibot, arktype and others. */
export type Schema = StandardSchemaV1;

/**
 * The value as the schema parses it.
 * @throws InvalidInputError with the path and message of each issue
 */
export async function parseInput(schema: Schema | undefined, value: unknown, name: string): Promise<unknown> {
  if (!schema) return value;
  const result = await schema["~standard"].validate(value);
  if (!result.issues) return result.value;
  throw new InvalidInputError(
    name,
    result.issues.map((issue) => ({
      path: ["$", ...(issue.path ?? []).map((part) => String(typeof part === "object" ? part.key : part))].join("."),
      message: issue.message,
    })),
  );
}
