/** The longest text shown in a message, in characters. */
const MAX_SHOWN = 100;

/** An object that is no array, date, map or the like. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** A value as a message shows it: a short text for any value. */
export function show(value: unknown): string {
  switch (typeof value) {
    case "string":
      return value.length > MAX_SHOWN
        ? `${JSON.stringify(value.slice(0, MAX_SHOWN))}… (${value.length} characters)`
        : JSON.stringify(value);
    case "bigint":
      return `the bigint ${value}n`;
    case "function":
    case "symbol":
      return `a ${typeof value}`;
    case "object":
      if (value === null) return "null";
      if (Array.isArray(value)) return "an array";
      return isPlainObject(value) ? "an object" : `an instance of ${value.constructor?.name || "a class"}`;
    default:
      return String(value);
  }
}
