import type { ConverterHint, Payload, PayloadConverter, SerializationContext } from "@temporalio/common";

/*
 * Other programs may start our activities and workflows, and signal them, with payloads in an unknown encoding. The SDK would retry
 * such a run for ever. With this converter such payloads can be recognised, and the run is settled. Bundled for the
 * sandbox as well, so it imports only types.
 */

const MARK = "taskBackendUndecodable";

/** A converter whose reading never throws. */
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

/** Why the value could not be read; undefined if it was read. */
export function undecodable(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (ArrayBuffer.isView(value)) return "it is bytes, not JSON";
  return MARK in value ? String(value[MARK]) : undefined;
}
