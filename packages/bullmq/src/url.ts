import { ConfigurationError } from "@task-backend/core/adapter";

export const REDIS_SCHEMES: readonly string[] = ["redis:", "rediss:"];
export const POSTGRES_SCHEMES: readonly string[] = ["postgres:", "postgresql:"];

/** The options that the drivers themselves read in the query of a URL. */
const OF_IOREDIS = "connectionName connectTimeout commandTimeout socketTimeout db family keepAlive noDelay tls".split(" ");
const OF_PG = [
  "application_name fallback_application_name channel_binding client_encoding options host port",
  "connectionTimeoutMillis idleTimeoutMillis keepAlive keepAliveInitialDelayMillis",
  "statement_timeout lock_timeout query_timeout idle_in_transaction_session_timeout",
  "ssl sslmode sslcert sslkey sslrootcert sslnegotiation uselibpqcompat",
].flatMap((names) => names.split(" "));

/**
 * Splits our options off a URL; the rest belongs to the driver.
 * @throws ConfigurationError without any part that may be a password
 */
export function splitUrl(text: string, ours: readonly string[]): { readonly url: URL; readonly query: Readonly<Record<string, string>> } {
  const url = parse(text);
  const drivers = REDIS_SCHEMES.includes(url.protocol) ? OF_IOREDIS : POSTGRES_SCHEMES.includes(url.protocol) ? OF_PG : undefined;
  const query: Record<string, string> = {};
  for (const [name, value] of new URLSearchParams(url.search)) {
    if (ours.includes(name)) {
      query[name] = value;
      url.searchParams.delete(name);
    } else if (drivers && !drivers.includes(name)) {
      throw new ConfigurationError(
        `The query of the bullmq URL holds "${name}", which is no option. There are ${ours.join(", ")}, and of the driver ${drivers.join(", ")}.`,
      );
    }
  }
  return { url, query };
}

/** Throws without the parser's error as the cause: it holds the whole URL. */
function parse(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ConfigurationError(`The URL of the bullmq backend is not one; give redis://host:6379 or postgres://host/database. ${ESCAPE}`);
  }
  const afterHost = `${url.pathname}${url.search}${url.hash}`;
  // A password may contain a character that ends the host, so the rest of it would be here and be shown.
  if (afterHost.includes("@") || url.hash !== "") {
    throw new ConfigurationError(`The URL of the bullmq backend has "@" or "#" after its host. ${ESCAPE}`);
  }
  if (REDIS_SCHEMES.includes(url.protocol) && !/^\/?\d*$/.test(url.pathname)) {
    throw new ConfigurationError(`The path of the bullmq URL is not the number of a Redis database, such as /0. ${ESCAPE}`);
  }
  return url;
}

const ESCAPE = 'In a user or password write "/" as %2F, "@" as %40, "#" as %23, "?" as %3F, ":" as %3A and "%" as %25.';
