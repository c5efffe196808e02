import type { ConverterHint, Payload, PayloadConverter, SerializationContext } from "@temporalio/common";

/*
 * Others may start our activities and workflows, and signal them, with payloads in an encoding that nobody here knows. The SDK
 * would try such a run again for ever. With this they are read as what they are, and the run is settled. It is bundled for the
 * sandbox as well: no imports but types.
 */

const MARK = "taskBackendUndecodable";

/** A converter that never throws on what it reads. */
export function tolerant(inner: PayloadConverter): PayloadConverter {
  return {
    toPayload: (value, context, hint) => inner.toPayload(value, context, hint),
    fromPayload: <T>(payload: Payload, context?: SerializationContext, hint?: ConverterHint<T>): T => {
      try {
        return inner.fromPayload<T>(payload, context, hint);
      } catch (error) {
        return { [MARK]: (error as Error).message } as T;
      }
    },
  };
}

/** Why the value could not be read; undefined for one that was. */
export function undecodable(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (ArrayBuffer.isView(value)) return "it is bytes, not JSON";
  return MARK in value ? String(value[MARK]) : undefined;
}
