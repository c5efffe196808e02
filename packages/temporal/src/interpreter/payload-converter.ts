import { defaultPayloadConverter } from "@temporalio/common";
import { tolerant } from "../undecodable.ts";

/** What the sandbox reads payloads with: the bundler looks for this name. */
export const payloadConverter = tolerant(defaultPayloadConverter);
