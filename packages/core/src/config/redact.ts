import { inspect } from "node:util";

/** Stands in place of a text that may be secret. */
const HIDDEN = "[hidden]";
/** A shorter text is hardly a secret, and would be found inside words. */
const MIN_SECRET_LENGTH = 4;
const MAX_DEPTH = 4;

/**
 * A URL fit to be shown: without user, password, query and fragment, which may all hold secrets. The whole text is hidden when it
 * is uncertain which part is secret: no parser takes it, or an unescaped character in a password misleads one.
 */
export function redactUrl(url: string): string {
  const text = url.trim();
  if (isPlace(text)) return text;
  const [, scheme = "", rest = ""] = /^([a-z][a-z0-9+.-]*:(?:\/\/)?)?(.*)$/is.exec(text) ?? [];
  const shown = rest.replace(/[?#].*$/s, "");
  // This is a path, with no user in front of it.
  if (/^(sqlite|file):(\/\/)?$/i.test(scheme)) return scheme + shown;
  if (!scheme.endsWith("//")) return HIDDEN;
  // The last "@" stands before the host, whatever a password holds. One after a "?" or "#" may belong to the password or to the query.
  const place = shown.slice(shown.lastIndexOf("@") + 1);
  const certain = !rest.slice(shown.length).includes("@") && (shown.includes("@") || URL.canParse(text));
  return scheme + (certain && isPlace(place) ? place : HIDDEN);
}

/** Whether a text is only hosts with their ports, and a path after them. */
function isPlace(text: string): boolean {
  return /^[\w.-]*(:\d{1,5})?(,[\w.-]+(:\d{1,5})?)*(\/[^@]*)?$|^\[[\da-f:.]+\](:\d{1,5})?(\/[^@]*)?$/i.test(text);
}

/**
 * The same error, with the secrets of a URL removed from its texts, its causes and its other properties.
 * Clients and parsers quote their input.
 */
export function withoutSecrets<T>(error: T, url: string | undefined): T {
  const secrets = url === undefined ? [] : secretsOf(url);
  if (secrets.length > 0) clean(error, secrets, new Set(), 0);
  return error;
}

/** The secret parts of a URL, as given and decoded, the longest first. */
function secretsOf(url: string): string[] {
  const credentials = /^[^@]*?\/\/(.*)@/s.exec(url)?.[1] ?? /^(.*)@/s.exec(url)?.[1] ?? "";
  const password = credentials.slice(credentials.indexOf(":") + 1);
  const parameters = [...url.matchAll(/[?&][^=&#]*(?:pass|secret|token|key)[^=&#]*=([^&#]*)/gi)].map(([, value = ""]) => value);
  const holds = password !== "" || parameters.some((value) => value !== "");
  const user = credentials.slice(0, Math.max(credentials.indexOf(":"), 0));
  // A parser that is misled by a password quotes a part of it as a host, a port or a path.
  const parts = [password, decoded(password)].flatMap((text) => text.split(/[/?#@:]/));
  const texts = [...(holds ? [url] : []), credentials, password, ...parts, ...parameters];
  return [...new Set([...texts, ...texts.map(decoded)])]
    .filter((text) => text.length >= MIN_SECRET_LENGTH && text !== user && !url.startsWith(text))
    .sort((one, other) => other.length - one.length);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function clean(value: unknown, secrets: readonly string[], seen: Set<object>, depth: number): void {
  if (typeof value !== "object" || value === null || seen.has(value) || depth > MAX_DEPTH) return;
  seen.add(value);
  for (const key of Object.getOwnPropertyNames(value)) {
    const property = Object.getOwnPropertyDescriptor(value, key);
    const held: unknown = property && "value" in property ? property.value : undefined;
    if (typeof held === "string") {
      if (holdsAny(held, secrets)) replace(value, key, without(held, secrets));
    } else if (held instanceof Error || Array.isArray(held)) clean(held, secrets, seen, depth + 1);
    // This may be the options of a client, or a socket, which others use: the error's property is replaced, and the object stays unchanged.
    else if (holdsAny(printed(held), secrets)) replace(value, key, HIDDEN);
  }
}

function holdsAny(text: string, secrets: readonly string[]): boolean {
  return secrets.some((secret) => text.includes(secret));
}

function without(text: string, secrets: readonly string[]): string {
  return secrets.reduce((rest, secret) => rest.replaceAll(secret, HIDDEN), text);
}

function replace(holder: object, key: string, text: string): void {
  try {
    const enumerable = Object.getOwnPropertyDescriptor(holder, key)?.enumerable ?? false;
    Object.defineProperty(holder, key, { value: text, enumerable, writable: true, configurable: true });
  } catch {
    // The object is frozen and stays as it is.
  }
}

function printed(value: unknown): string {
  if (typeof value !== "object" || value === null) return "";
  return inspect(value, { depth: MAX_DEPTH, showHidden: true, maxStringLength: null, maxArrayLength: null });
}
