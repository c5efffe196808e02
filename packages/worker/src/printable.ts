const MAX_DEPTH = 8;
const MAX_ITEMS = 100;

/**
 * Turns any value into JSON for a log line: errors keep their properties, and values that JSON cannot hold are described in words.
 * Never throws, whatever getters and proxies do.
 */
export function printable(value: unknown): unknown {
  return plain(value, []);
}

function plain(value: unknown, within: readonly object[]): unknown {
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "symbol") return value.toString();
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (typeof value === "function") return "[function]";
  if (typeof value !== "object" || value === null) return value;
  if (within.includes(value)) return "[circular]";
  if (within.length >= MAX_DEPTH) return "[nested too deep]";
  try {
    return members(value, [...within, value]);
  } catch {
    return "[unreadable]";
  }
}

function members(value: object, within: readonly object[]): unknown {
  if (value instanceof Error) return properties(value, ["name", "message", "stack", "cause", "errors", ...Object.keys(value)], within);
  if (Array.isArray(value) || value instanceof Set) return items([...value], within);
  if (value instanceof Map) return properties(Object.fromEntries(value), [...value.keys()].map(String), within);
  if (ArrayBuffer.isView(value)) return `[${value.constructor.name} of ${value.byteLength} bytes]`;
  const toJson = Reflect.get(value, "toJSON") as unknown;
  if (typeof toJson === "function") return plain(Reflect.apply(toJson, value, []), within);
  return properties(value, Object.keys(value), within);
}

function items(values: readonly unknown[], within: readonly object[]): unknown[] {
  const shown = values.slice(0, MAX_ITEMS).map((item) => plain(item, within));
  return values.length > MAX_ITEMS ? [...shown, `[${values.length - MAX_ITEMS} more]`] : shown;
}

function properties(value: object, keys: readonly string[], within: readonly object[]): Record<string, unknown> {
  const found = [...new Set(keys)].map((key): [string, unknown] => {
    try {
      return [key, plain(Reflect.get(value, key), within)];
    } catch {
      return [key, "[unreadable]"];
    }
  });
  return Object.fromEntries(found.filter(([, held]) => held !== undefined));
}
