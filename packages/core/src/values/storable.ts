import type { ErrorRecord } from "./error-record.ts";
import type { Json } from "./json.ts";

/** The characters that the connected store cannot hold in a text. */
export interface TextLimits {
  readonly nullCharacters: boolean;
  readonly loneSurrogates: boolean;
}

const NULL_CHARACTER = "\u0000";
const REPLACEMENT = "\ufffd";

/**
 * An error record that the connected store accepts: an error must never be refused for its text, or its run could not settle.
 * A null character or half a surrogate pair becomes U+FFFD if the store cannot hold it.
 */
export function storableError(record: ErrorRecord, limits: TextLimits): ErrorRecord {
  if (limits.nullCharacters && limits.loneSurrogates) return record;
  return storable(record, limits) as ErrorRecord;
}

function storable(value: unknown, limits: TextLimits): unknown {
  if (typeof value === "string") return storableText(value, limits);
  if (Array.isArray(value)) return value.map((item: Json) => storable(item, limits));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [storableText(key, limits), storable(item, limits)]));
}

function storableText(text: string, { nullCharacters, loneSurrogates }: TextLimits): string {
  const printable = nullCharacters ? text : text.replaceAll(NULL_CHARACTER, REPLACEMENT);
  // This matches an unpaired half: with the flag u, a pair is one character and does not match.
  return loneSurrogates ? printable : printable.replace(/\p{Cs}/gu, REPLACEMENT);
}
