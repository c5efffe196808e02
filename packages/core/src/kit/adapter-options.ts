import { parseDuration, type Duration } from "../values/duration.ts";
import { ConfigurationError } from "../values/errors.ts";

/** The part of a zod object schema that is needed here, from any copy of zod. */
interface OptionsSchema<T> {
  readonly shape: object;
  safeParse(value: unknown):
    | { readonly success: true; readonly data: T }
    | {
        readonly success: false;
        readonly error: { readonly issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[] };
      };
}

/**
 * Checks the options of an adapter.
 * @param engine the name that users know: `bullmq`
 * @throws ConfigurationError naming the invalid option and the known options
 */
export function parseAdapterOptions<T>(engine: string, schema: OptionsSchema<T>, options: unknown): T {
  const parsed = schema.safeParse(options ?? {});
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const names = Object.keys(schema.shape).join(", ");
  throw new ConfigurationError(
    `Options of the ${engine} backend: ${issue?.path.map(String).join(".") || "they"}: ${issue?.message}. They are ${names}.`,
  );
}

/** A duration among an adapter's options, in milliseconds. @throws InvalidArgumentError naming the option */
export function optionMs(engine: string, name: string, value: number | string): number {
  return parseDuration(value as Duration, `Option ${name} of the ${engine} backend`);
}
