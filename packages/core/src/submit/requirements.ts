import { UnsupportedCapabilityError } from "../values/errors.ts";
import type { ErrorRecord } from "../values/error-record.ts";
import { toJson, type Json } from "../values/json.ts";
import { storableError } from "../values/storable.ts";
import type { Capabilities, DefinitionSpec, Feature, RunRequest } from "../port/port.ts";

/**
 * Refuses a request that the connected engine cannot honour, before any I/O.
 * @throws UnsupportedCapabilityError
 */
export function requireSupported(capabilities: Capabilities, request: RunRequest): void {
  const need = needsOf(capabilities);
  const what = `run of "${request.name}"`;
  if (request.kind === "workflow") need("workflows", `it runs no workflows, such as "${request.name}"`);
  if (request.runAtMs !== undefined) need("delay", `the ${what} asks for a delay; submit it when it is due`);
  if (request.priority !== "normal")
    need("priority", `the ${what} asks for priority "${request.priority}"; leave it out, or use a queue of its own`);
  if (request.idempotencyKey !== undefined) {
    need("idempotency", `the ${what} asks for an idempotency key`);
    if (request.runAtMs !== undefined) need("idempotencyWithDelay", `the ${what} asks for an idempotency key and a delay; leave one out`);
  }
}

/** Turns a value into JSON that the connected engine can store. `what` names it in messages. */
export type PayloadCheck = (value: unknown, what: string) => Json;

/** The payload check of one engine: it throws InvalidPayloadError, PayloadTooLargeError, UnsupportedCapabilityError. */
export function payloadCheck(capabilities: Capabilities): PayloadCheck {
  return (value, what) => {
    const json = toJson(value, what, capabilities.limits.maxPayloadBytes);
    requireText(capabilities, json, what);
    return json;
  };
}

function requireText(capabilities: Capabilities, json: Json, what: string): void {
  const { nullCharacters, loneSurrogates } = capabilities.features;
  if (nullCharacters !== "unsupported" && loneSurrogates !== "unsupported") return;
  const text = JSON.stringify(json);
  const need = needsOf(capabilities);
  if (/(?:^|[^\\])(?:\\\\)*\\u0000/.test(text))
    need("nullCharacters", `the ${what} holds a null character; encode it, in base64 for example`);
  if (/(?:^|[^\\])(?:\\\\)*\\ud[89a-f]/.test(text))
    need("loneSurrogates", `the ${what} holds half a surrogate pair; encode it, in base64 for example`);
}

/** Makes error records storable on one engine: it replaces characters that the engine cannot store. */
export function storableFor({ features }: Capabilities): (error: ErrorRecord) => ErrorRecord {
  const limits = {
    nullCharacters: features.nullCharacters !== "unsupported",
    loneSurrogates: features.loneSurrogates !== "unsupported",
  };
  return (error) => storableError(error, limits);
}

/** Refuses definitions whose policy the engine cannot carry out. @throws UnsupportedCapabilityError */
export function requireDefinition(capabilities: Capabilities, definition: DefinitionSpec): void {
  const need = needsOf(capabilities);
  if (definition.kind === "workflow") need("workflows", `it runs no workflows, such as "${definition.name}"`);
  if (definition.timeoutMs !== undefined) need("timeout", `task "${definition.name}" has a timeout; leave it out`);
  if (definition.retry && definition.retry.attempts > 1)
    need("backoff", `task "${definition.name}" has a retry policy; give \`attempts: 1\``);
}

function needsOf({ engine, features }: Capabilities): (feature: Feature, message: string) => void {
  return (feature, message) => {
    if (features[feature] === "unsupported") throw new UnsupportedCapabilityError(engine, feature, message);
  };
}
