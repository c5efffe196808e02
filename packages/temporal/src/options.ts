import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { ConfigurationError, optionMs, parseAdapterOptions, type Duration } from "@task-backend/core/adapter";
import type { Connection, ConnectionOptions } from "@temporalio/client";
import { loadClientConnectConfig, type ClientConnectConfig } from "@temporalio/envconfig";
import type { DataConverter } from "@temporalio/common";
import type { NativeConnection, NativeConnectionOptions, TLSConfig } from "@temporalio/worker";
import { z } from "zod";

/** Options of `temporal()`, of `options` in the configuration, and (plain values only) of the query of `temporal:` URLs. */
export interface TemporalOptions {
  /** `temporal://host:port/namespace`. */
  url?: string;
  /** Host and port. Default: Temporal's own variables and configuration file (`TEMPORAL_ADDRESS`), else `localhost:7233`. */
  address?: string;
  /** Default: `TEMPORAL_NAMESPACE`, else `default`. */
  namespace?: string;
  /** Default: `TEMPORAL_API_KEY`. Implies TLS. */
  apiKey?: string;
  /** `true`, or the paths of PEM files. */
  tls?: boolean | { serverName?: string; serverRootCaCertificate?: string; clientCertificate?: string; clientKey?: string };
  /** Given instead of an address: ready connections, which are never closed here. Workers need the native one. */
  connection?: Connection;
  nativeConnection?: NativeConnection;
  /** Passed through to client and workers: payload converter and codecs. */
  dataConverter?: DataConverter;
  /** A worker counts as lost after this long without a heartbeat. Default 30 s. */
  heartbeatTimeout?: Duration;
  /** The time limit for connecting. Default 30 s. */
  connectTimeout?: Duration;
  /** How long settled runs are readable. The default and the maximum are the retention of the namespace. */
  retention?: Duration;
}

/** `TemporalOptions` with every default filled in. */
export interface TemporalSettings {
  readonly connect: NativeConnectionOptions & ConnectionOptions;
  readonly address: string;
  readonly namespace: string;
  readonly connection?: Connection;
  readonly nativeConnection?: NativeConnection;
  readonly dataConverter?: DataConverter;
  readonly heartbeatTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly retentionMs?: number;
}

const duration = z.union([z.number(), z.string()]).optional();
const ready = (what: string) => z.custom<object>((value) => typeof value === "object" && value !== null, `must be ${what}`).optional();
const schema = z.strictObject({
  url: z.string().min(1).optional(),
  address: z.string().min(1).optional(),
  namespace: z.string().min(1).optional(),
  apiKey: z.string().min(1).optional(),
  tls: z
    .union([
      z.boolean(),
      z.strictObject({
        serverName: z.string().optional(),
        serverRootCaCertificate: z.string().optional(),
        clientCertificate: z.string().optional(),
        clientKey: z.string().optional(),
      }),
    ])
    .optional(),
  connection: ready("a Connection of @temporalio/client"),
  nativeConnection: ready("a NativeConnection of @temporalio/worker"),
  dataConverter: ready("a DataConverter"),
  heartbeatTimeout: duration,
  connectTimeout: duration,
  retention: duration,
});

/** @throws ConfigurationError naming the option, InvalidArgumentError for a bad duration */
export function parseOptions(options: unknown, env: Readonly<Record<string, string | undefined>>): TemporalSettings {
  const { url, tls, connection, nativeConnection, dataConverter, ...plain } = parseAdapterOptions("temporal", schema, options);
  const all = { ...plain, ...(url !== undefined && parseUrl(url)) };
  const ms = (value: number | string, name: string): number => optionMs("temporal", name, value);
  const { connectionOptions: found, namespace } = environment(env);
  const address = all.address ?? found.address ?? "localhost:7233";
  return {
    connect: {
      ...found,
      address,
      ...(all.apiKey !== undefined && { apiKey: all.apiKey, tls: true }),
      ...(tls !== undefined && { tls: typeof tls === "boolean" ? tls : readTls(tls) }),
    },
    address,
    namespace: all.namespace ?? namespace ?? "default",
    connectTimeoutMs: Math.max(ms(all.connectTimeout ?? "30s", "connectTimeout"), 1),
    heartbeatTimeoutMs: Math.max(ms(all.heartbeatTimeout ?? "30s", "heartbeatTimeout"), 1_000),
    ...(connection && { connection: connection as Connection }),
    ...(nativeConnection && { nativeConnection: nativeConnection as NativeConnection }),
    ...(dataConverter && { dataConverter }),
    ...(all.retention !== undefined && { retentionMs: ms(all.retention, "retention") }),
  };
}

/** The options that a URL can hold. The rest of the URL is the address. */
const IN_URLS: readonly string[] = ["namespace", "apiKey", "heartbeatTimeout", "connectTimeout", "retention"];

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new ConfigurationError(`TASK_BACKEND_URL of the temporal backend has the namespace "${text}", which is not properly encoded.`, {
      cause,
    });
  }
}

function parseUrl(text: string): Record<string, string> {
  let url: URL | undefined;
  try {
    url = new URL(text);
  } catch {
    // The error is thrown below.
  }
  if (url?.protocol !== "temporal:" || url.host === "") {
    throw new ConfigurationError("TASK_BACKEND_URL of the temporal backend must be temporal://host:port/namespace.");
  }
  const namespace = decoded(url.pathname.slice(1));
  const query = Object.fromEntries(url.searchParams);
  const unknown = Object.keys(query).find((name) => !IN_URLS.includes(name));
  if (unknown !== undefined) {
    throw new ConfigurationError(
      `TASK_BACKEND_URL of the temporal backend has "${unknown}" in its query, which is no option there; those are ${IN_URLS.join(", ")}.`,
    );
  }
  return { address: url.host, ...(namespace && { namespace }), ...query };
}

type TlsPaths = { readonly [K in keyof Exclude<TemporalOptions["tls"], boolean | undefined>]: string | undefined };

/** The values of Temporal's own variables and its configuration file. */
function environment(env: Readonly<Record<string, string | undefined>>): ClientConnectConfig {
  const variables = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  try {
    return loadClientConnectConfig({ overrideEnvVars: Object.fromEntries(variables) });
  } catch (cause) {
    throw new ConfigurationError(`Temporal's environment configuration cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function readTls({ serverName, serverRootCaCertificate, clientCertificate, clientKey }: TlsPaths): TLSConfig {
  const read = (path: string): Buffer => {
    try {
      return readFileSync(resolve(path));
    } catch (cause) {
      throw new ConfigurationError(`The TLS file ${path} of the temporal backend cannot be read: ${(cause as Error).message}`, { cause });
    }
  };
  if ((clientCertificate === undefined) !== (clientKey === undefined)) {
    throw new ConfigurationError("Options of the temporal backend: tls.clientCertificate and tls.clientKey go together.");
  }
  return {
    ...(serverName !== undefined && { serverNameOverride: serverName }),
    ...(serverRootCaCertificate !== undefined && { serverRootCACertificate: read(serverRootCaCertificate) }),
    ...(clientCertificate !== undefined &&
      clientKey !== undefined && { clientCertPair: { crt: read(clientCertificate), key: read(clientKey) } }),
  };
}
