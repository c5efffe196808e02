import { InvalidPayloadError, PayloadTooLargeError } from "./errors.ts";

/** A value that JSON can hold without loss. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** String values that travel with a run and with everything a workflow starts. */
export type Headers = Readonly<Record<string, string>>;

/** The deepest nesting: deeper values overflow the stack of some engine's parser. */
const MAX_DEPTH = 1_000;

interface Walk {
  readonly where: string;
  readonly path: (string | number)[];
  readonly open: Set<object>;
  /** An upper bound of the UTF-8 bytes of the value's `JSON.stringify` text. */
  bound: number;
}

/**
 * Checks that a value is JSON and returns a copy without its undefined properties.
 * @param where the name of the value in messages: `input of task "resize"`
 * @param maxBytes the limit of the connected engine, in bytes of UTF-8 JSON text
 * @throws InvalidPayloadError naming the path of the part that JSON cannot hold
 * @throws PayloadTooLargeError
 */
export function toJson(value: unknown, where: string, maxBytes = Number.POSITIVE_INFINITY): Json {
  const walk: Walk = { where, path: [], open: new Set(), bound: 0 };
  const json = value === undefined ? null : readable(value, walk);
  if (walk.bound > maxBytes) {
    const bytes = Buffer.byteLength(JSON.stringify(json));
    if (bytes > maxBytes) throw new PayloadTooLargeError(where, bytes, maxBytes);
  }
  return json;
}

/** The copy, also of what runs code when it is read: a getter or a proxy may throw anything. */
function readable(value: unknown, walk: Walk): Json {
  try {
    return copy(value, walk);
  } catch (thrown) {
    if (thrown instanceof InvalidPayloadError) throw thrown;
    throw refuse(walk, "what throws when it is read", thrown);
  }
}

function copy(value: unknown, walk: Walk): Json {
  switch (typeof value) {
    case "string":
      walk.bound += 6 * value.length + 3;
      return value;
    case "boolean":
      walk.bound += 6;
      return value;
    case "number":
      walk.bound += 26;
      if (!Number.isFinite(value)) throw refuse(walk, String(value));
      return value === 0 ? 0 : value;
    case "object":
      if (value === null) {
        walk.bound += 5;
        return null;
      }
      return copyObject(value, walk);
    case "bigint":
      throw refuse(walk, `the bigint ${value}n`);
    default:
      throw refuse(walk, value === undefined ? "undefined in an array" : `a ${typeof value}`);
  }
}

function copyObject(value: object, walk: Walk): Json {
  if (walk.open.has(value)) throw refuse(walk, "a cycle");
  if (walk.open.size >= MAX_DEPTH) throw refuse(walk, `nesting deeper than ${MAX_DEPTH} levels`);
  walk.open.add(value);
  walk.bound += 3;
  const result = Array.isArray(value) ? copyArray(value, walk) : copyRecord(value, walk);
  walk.open.delete(value);
  return result;
}

function copyArray(value: readonly unknown[], walk: Walk): Json {
  const result: Json[] = [];
  for (let index = 0; index < value.length; index++) {
    walk.path.push(index);
    result.push(copy(value[index], walk));
    walk.path.pop();
  }
  return result;
}

function copyRecord(value: object, walk: Walk): Json {
  const prototype: unknown = Object.getPrototypeOf(value);
  // A prototype that has no prototype itself is the Object.prototype of some realm.
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw refuse(walk, `an instance of ${value.constructor?.name || "a class"}`);
  }
  const result: Record<string, Json> = {};
  for (const [key, item] of Object.entries(value)) {
    if (item === undefined) continue;
    walk.path.push(key);
    walk.bound += 6 * key.length + 4;
    const json = copy(item, walk);
    walk.path.pop();
    if (key === "__proto__") {
      Object.defineProperty(result, key, { value: json, enumerable: true, configurable: true, writable: true });
    } else {
      result[key] = json;
    }
  }
  return result;
}

function refuse(walk: Walk, what: string, cause?: unknown): InvalidPayloadError {
  const path = walk.path.reduce<string>(
    (text, part) =>
      text + (typeof part === "number" ? `[${part}]` : /^[A-Za-z_$][\w$]*$/.test(part) ? `.${part}` : `[${JSON.stringify(part)}]`),
    "$",
  );
  return new InvalidPayloadError(walk.where, path.length > 300 ? `${path.slice(0, 300)}…` : path, what, cause);
}
