import { inspect } from "node:util";

/** Stands where something was that may be a secret. */
const HIDDEN = "[hidden]";
/** A shorter text is no secret worth the name, and would be found in the midst of words. */
const MIN_SECRET_LENGTH = 4;
const MAX_DEPTH = 4;

/**
 * A URL fit to be shown: no user, password, query or fragment, which may all hold secrets. Where it cannot be told what of
 * a text is secret, because no parser takes it or an unescaped character in a password misleads one, all of that is hidden.
 */
export function redactUrl(url: string): string {
  const text = url.trim();
  if (isPlace(text)) return text;
  const [, scheme = "", rest = ""] = /^([a-z][a-z0-9+.-]*:(?:\/\/)?)?(.*)$/is.exec(text) ?? [];
  const shown = rest.replace(/[?#].*$/s, "");
  // A path, which has no user in front of it.
  if (/^(sqlite|file):(\/\/)?$/i.test(scheme)) return scheme + shown;
  if (!scheme.endsWith("//")) return HIDDEN;
  // The last "@" stands before the host, whatever a password holds; one behind a "?" or "#" may be of the password or of the query.
  const place = shown.slice(shown.lastIndexOf("@") + 1);
  const certain = !rest.slice(shown.length).includes("@") && (shown.includes("@") || URL.canParse(text));
  return scheme + (certain && isPlace(place) ? place : HIDDEN);
}

/** Hosts with their ports, and the path behind them. */
function isPlace(text: string): boolean {
  return /^[\w.-]*(:\d{1,5})?(,[\w.-]+(:\d{1,5})?)*(\/[^@]*)?$|^\[[\da-f:.]+\](:\d{1,5})?(\/[^@]*)?$/i.test(text);
}

/**
 * The same error, without the secrets of a URL: neither in its own texts, nor in its causes, nor in what else hangs on it.
 * Clients and parsers quote what they were given.
 */
export function withoutSecrets<T>(error: T, url: string | undefined): T {
  const secrets = url === undefined ? [] : secretsOf(url);
  if (secrets.length > 0) clean(error, secrets, new Set(), 0);
  return error;
}

/** What of a URL must not be shown, as given and decoded, the longest first. */
function secretsOf(url: string): string[] {
  const credentials = /^[^@]*?\/\/(.*)@/s.exec(url)?.[1] ?? /^(.*)@/s.exec(url)?.[1] ?? "";
  const password = credentials.slice(credentials.indexOf(":") + 1);
  const parameters = [...url.matchAll(/[?&][^=&#]*(?:pass|secret|token|key)[^=&#]*=([^&#]*)/gi)].map(([, value = ""]) => value);
  const holds = password !== "" || parameters.some((value) => value !== "");
  const user = credentials.slice(0, Math.max(credentials.indexOf(":"), 0));
  // A parser that is misled by a password quotes the part that it took for a host, a port or a path.
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
    // The options of a client, or a socket: it may belong to somebody, so the error lets go of it instead of changing it.
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
    // It is frozen: what cannot be changed is left to whoever froze it.
  }
}

function printed(value: unknown): string {
  if (typeof value !== "object" || value === null) return "";
  return inspect(value, { depth: MAX_DEPTH, showHidden: true, maxStringLength: null, maxArrayLength: null });
}
