import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { ConfigurationError, optionMs, parseAdapterOptions, type Duration } from "@task-backend/core/adapter";
import { z } from "zod";

/** Options of `hatchet()`, of `options` in the configuration, and (plain values only) of the query of `hatchet:` URLs. */
export interface HatchetOptions {
  /** `hatchet://host:port`: the address of the engine's gRPC. */
  url?: string;
  /** Default: `HATCHET_CLIENT_TOKEN`. It contains the server's addresses; the next two options override them. */
  token?: string;
  /** The address of gRPC. Default: `HATCHET_CLIENT_HOST_PORT`, else the token's. */
  hostPort?: string;
  /** Default: `HATCHET_CLIENT_API_URL`, else the token's. */
  apiUrl?: string;
  /** Default: `HATCHET_CLIENT_TLS_STRATEGY`, else `tls`. */
  tls?: "none" | "tls" | "mtls";
  /** Paths of PEM files. Default: `HATCHET_CLIENT_TLS_…`. */
  certFile?: string;
  keyFile?: string;
  caFile?: string;
  serverName?: string;
  /** The prefix of every name. Default: `HATCHET_CLIENT_NAMESPACE`. */
  namespace?: string;
  /** Given instead of all these options: a ready client. */
  client?: HatchetClient;
  /** How long settled runs are readable; at most the server's own retention. Default 30 d. */
  retention?: Duration;
}

/** `HatchetOptions` with every default filled in. */
export interface HatchetSettings {
  readonly config: NonNullable<Parameters<typeof HatchetClient.init>[0]>;
  readonly where: string;
  readonly client?: HatchetClient;
  readonly retentionMs: number;
}

const text = z.string().min(1).optional();
const schema = z.strictObject({
  url: text,
  token: text,
  hostPort: text,
  apiUrl: text,
  tls: z.enum(["none", "tls", "mtls"]).optional(),
  certFile: text,
  keyFile: text,
  caFile: text,
  serverName: text,
  namespace: text,
  client: z.custom<object>((value) => typeof value === "object" && value !== null, "must be a HatchetClient").optional(),
  retention: z.union([z.number(), z.string()]).optional(),
});

const VARIABLES = {
  token: "HATCHET_CLIENT_TOKEN",
  hostPort: "HATCHET_CLIENT_HOST_PORT",
  apiUrl: "HATCHET_CLIENT_API_URL",
  tls: "HATCHET_CLIENT_TLS_STRATEGY",
  certFile: "HATCHET_CLIENT_TLS_CERT_FILE",
  keyFile: "HATCHET_CLIENT_TLS_KEY_FILE",
  caFile: "HATCHET_CLIENT_TLS_ROOT_CA_FILE",
  serverName: "HATCHET_CLIENT_TLS_SERVER_NAME",
  namespace: "HATCHET_CLIENT_NAMESPACE",
} as const;

/** @throws ConfigurationError naming the option, InvalidArgumentError for a bad duration */
export function parseOptions(options: unknown, env: Readonly<Record<string, string | undefined>>): HatchetSettings {
  const { url, client, ...given } = parse(options);
  const found = Object.fromEntries(Object.entries(VARIABLES).flatMap(([name, variable]) => (env[variable] ? [[name, env[variable]]] : [])));
  const all = parse({ ...found, ...given, ...(url !== undefined && parseUrl(url)) });
  if (!client && all.token === undefined) {
    throw new ConfigurationError(
      `The hatchet backend needs a token: set ${VARIABLES.token}, or the option token. "hatchet-admin token create" makes one.`,
    );
  }
  const { token, hostPort, apiUrl, tls = "tls", certFile, keyFile, caFile, serverName, namespace, retention = "30d" } = all;
  const addresses = addressesOf(token);
  const [host_port, api_url] = [hostPort ?? addresses.hostPort, apiUrl ?? addresses.apiUrl];
  return {
    config: optionsOfSdk({
      ...(token !== undefined && { token }),
      ...(host_port !== undefined && { host_port }),
      ...(api_url !== undefined && { api_url }),
      tls_config: { tls_strategy: tls, cert_file: certFile, key_file: keyFile, ca_file: caFile, server_name: serverName },
      // An empty namespace is given too, so that the SDK does not read it from the environment.
      namespace: namespace === undefined ? "" : `${namespace.replace(/_$/, "")}_`,
    }),
    where: client ? clientOf(client).config.host_port : (host_port ?? "where its token says"),
    ...(client && { client: clientOf(client) }),
    retentionMs: optionMs("hatchet", "retention", retention),
  };
}

/** The SDK's type requires options that the SDK fills in itself. */
function optionsOfSdk(given: object): HatchetSettings["config"] {
  return given;
}

/** The schema only checks that it is an object. */
function clientOf(given: object): HatchetClient {
  return given as HatchetClient;
}

function parse(options: unknown): z.infer<typeof schema> {
  return parseAdapterOptions("hatchet", schema, options);
}

function parseUrl(given: string): Record<string, string> {
  let url: URL | undefined;
  try {
    url = new URL(given);
  } catch {
    // The error is thrown below.
  }
  if (url?.protocol !== "hatchet:" || url.host === "") {
    throw new ConfigurationError(
      "TASK_BACKEND_URL of the hatchet backend must be hatchet://host:port; its token is in HATCHET_CLIENT_TOKEN.",
    );
  }
  if (url.searchParams.has("url")) throw new ConfigurationError("The query of the hatchet URL: url stands for itself; leave it out.");
  return { ...Object.fromEntries(url.searchParams), hostPort: url.host };
}

/** The server's addresses in a token. @throws ConfigurationError */
function addressesOf(token: string | undefined): { readonly hostPort?: string; readonly apiUrl?: string } {
  if (token === undefined) return {};
  try {
    const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as Record<string, string | undefined>;
    const { grpc_broadcast_address: hostPort, server_url: apiUrl } = claims;
    return { ...(hostPort !== undefined && { hostPort }), ...(apiUrl !== undefined && { apiUrl }) };
  } catch (cause) {
    throw new ConfigurationError(`The token of the hatchet backend is not one: Hatchet's tokens are JWTs (${VARIABLES.token}).`, { cause });
  }
}
