import { parseDuration, type Duration } from "../values/duration.ts";
import { ConfigurationError } from "../values/errors.ts";

/** As much of a zod object schema as is needed, whichever copy of zod made it. */
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
 * The options of an adapter, checked.
 * @param engine how users know it: `bullmq`
 * @throws ConfigurationError naming the option, and those that there are
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
