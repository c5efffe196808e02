import { InvalidArgumentError, InvalidDefinitionError, PayloadTooLargeError } from "../values/errors.ts";
import type { Headers } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import { isPlainObject, show } from "../values/show.ts";

/*
 * The checks of all values that users give, each in one place: a name has the same form in a definition, a submission, a step, a
 * worker's options and the operator's policy. Only the error differs: a definition is refused with InvalidDefinitionError, an
 * argument of a call with InvalidArgumentError.
 */

/** The class of the error that a check throws. */
export type Refusal = typeof InvalidDefinitionError | typeof InvalidArgumentError;

const NAME = /^[^\s\p{Cc}\p{Cs}@,](?:[^\p{Cc}\p{Cs}@,]{0,198}[^\s\p{Cc}\p{Cs}@,])?$/u;
const CONTROL = /\p{Cc}/u;
/** The flag u makes a pair one character, so that only an unpaired half matches. */
const LONE_SURROGATE = /\p{Cs}/u;

/** The longest idempotency key, signal name or dedupeId, in UTF-16 units. */
const MAX_KEY_LENGTH = 500;
/** The longest header name. */
const MAX_HEADER_NAME_LENGTH = 200;
/** The largest headers of a run: they travel with every step that it starts. */
const MAX_HEADER_BYTES = 16_384;

/** Checks the name of a task, workflow, queue or version: it has no characters that engines reserve. */
export function checkName(value: unknown, what: string, Refused: Refusal = InvalidDefinitionError): string {
  if (typeof value === "string" && NAME.test(value)) return value;
  throw new Refused(`${what} is ${show(value)}; give 1 to 200 characters without "@", commas, control characters or blanks at the ends.`);
}

/** Checks an idempotency key, a signal name or a dedupeId: any text that every engine can store. */
export function checkKey(value: unknown, what: string, Refused: Refusal = InvalidArgumentError): string {
  if (typeof value === "string" && value !== "" && value.length <= MAX_KEY_LENGTH && !value.includes("\0") && !LONE_SURROGATE.test(value))
    return value;
  throw new Refused(
    `${what} is ${show(value)}; give text of 1 to ${MAX_KEY_LENGTH} characters without null characters or halves of surrogate pairs.`,
  );
}

/** Checks the headers given, but not their total size: that is checked once they are merged over those of the workflow. */
export function checkHeaders(value: unknown, where: string): Headers {
  if (value === undefined) return {};
  if (!isPlainObject(value)) throw new InvalidArgumentError(`The headers of ${where} are ${show(value)}; give an object of text by name.`);
  for (const [name, text] of Object.entries(value)) {
    if (name === "" || name.length > MAX_HEADER_NAME_LENGTH || CONTROL.test(name) || LONE_SURROGATE.test(name)) {
      throw new InvalidArgumentError(
        `A header of ${where} has the name ${show(name)}; give 1 to ${MAX_HEADER_NAME_LENGTH} characters without control characters.`,
      );
    }
    if (typeof text !== "string") throw new InvalidArgumentError(`Header ${show(name)} of ${where} is ${show(text)}; give text.`);
    if (LONE_SURROGATE.test(text))
      throw new InvalidArgumentError(`Header ${show(name)} of ${where} holds half a surrogate pair; give well-formed text.`);
  }
  return value as Headers;
}

/** @throws PayloadTooLargeError when headers are larger than the limit */
export function checkHeadersSize(headers: Headers, where: string): void {
  const bytes = Buffer.byteLength(JSON.stringify(headers));
  if (bytes > MAX_HEADER_BYTES) throw new PayloadTooLargeError(`headers of ${where}`, bytes, MAX_HEADER_BYTES);
}

/**
 * Refuses a value that is not an options object, and unknown options: a misspelt option would silently leave its default in force.
 * @param known all known options
 */
export function checkOptions(value: unknown, known: readonly string[], where: string, Refused: Refusal): void {
  if (!isPlainObject(value)) throw new Refused(`${where} is ${show(value)}; give an object with ${known.join(", ")}.`);
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue;
    const similar = nearest(name, known);
    const hint = similar === undefined ? "" : ` (did you mean "${similar}"?)`;
    throw new Refused(`${where} has no option ${show(name)}${hint}; the options are ${known.join(", ")}.`);
  }
}

/** Checks the logger of a backend. */
export function checkLogger(log: Logger | undefined): void {
  if (log === undefined) return;
  const missing = (["debug", "info", "warn", "error"] as const).filter((level) => typeof (log as Logger | null)?.[level] !== "function");
  if (missing.length === 0) return;
  throw new InvalidArgumentError(`The log of a backend has no function ${missing.join(", ")}; give debug, info, warn and error.`);
}

/** Checks only the form of engine options: they are passed to the engine untouched. */
export function checkNative<T extends object>(value: T | undefined, where: string, Refused: Refusal): T | undefined {
  if (value === undefined || isPlainObject(value)) return value;
  throw new Refused(`${where} is ${show(value)}; give an object with the options of each engine under its name.`);
}

/** The known word that a misspelt word most likely stands for. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const given = word.toLowerCase();
  const limit = Math.ceil(given.length / 2.5);
  let best: { name: string; edits: number } | undefined;
  for (const name of known) {
    const other = name.toLowerCase();
    const edits = given.length > 2 && (other.startsWith(given) || given.startsWith(other)) ? 0 : editsBetween(given, other);
    if (edits <= limit && edits < (best?.edits ?? Number.POSITIVE_INFINITY)) best = { name, edits };
  }
  return best?.name;
}

/** ` Did you mean "retention"?`, for the end of a sentence; empty when no known word is similar. */
export function didYouMean(word: string, known: readonly string[]): string {
  const similar = nearest(word, known);
  return similar === undefined ? "" : ` Did you mean "${similar}"?`;
}

/** The number of letters to insert, drop, replace or swap with their neighbour. */
function editsBetween(a: string, b: string): number {
  if (a.length > 50 || b.length > 50) return Number.POSITIVE_INFINITY;
  let [before, previous]: number[][] = [[], Array.from({ length: b.length + 1 }, (_, index) => index)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let edits = Math.min((previous?.[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (previous?.[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) edits = Math.min(edits, (before?.[j - 2] ?? 0) + 1);
      row.push(edits);
    }
    [before, previous] = [previous, row];
  }
  return previous?.[b.length] ?? 0;
}
