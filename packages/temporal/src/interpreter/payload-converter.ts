import { defaultPayloadConverter } from "@temporalio/common";
import { tolerant } from "../undecodable.ts";

/** The converter that reads payloads in the sandbox: the bundler looks for this name. */
export const payloadConverter = tolerant(defaultPayloadConverter);
