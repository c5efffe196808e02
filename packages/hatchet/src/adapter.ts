import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { BackendClosedError, BackendUnavailableError, type Adapter, type AdapterContext, type Logger } from "@task-backend/core/adapter";
import { Accepted } from "./accepted.ts";
import { capabilitiesOf } from "./capabilities.ts";
import { newClient } from "./client.ts";
import { toUnavailable } from "./errors.ts";
import { parseOptions, type HatchetOptions, type HatchetSettings } from "./options.ts";
import { Registry } from "./registry.ts";
import { cancelRun, sendSignal } from "./sent.ts";
import { Submissions } from "./submissions.ts";
import { Waits } from "./waits.ts";
import { HatchetWorker } from "./worker.ts";

/**
 * An adapter over Hatchet, for `createBackend`.
 * @throws ConfigurationError
 * @example
 * const backend = await createBackend(hatchet({ token, tls: "none" }));
 */
export function hatchet(options: HatchetOptions = {}): Adapter {
  return makeAdapter(parseOptions(options, process.env));
}

/** The factory that `TASK_BACKEND_TYPE=hatchet` loads. */
export function createAdapter({ url, options, env, log, retentionMs }: AdapterContext): Adapter {
  const given = typeof options === "object" && options !== null ? options : {};
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return makeAdapter(parseOptions({ ...retention, ...given, ...(url !== undefined && { url }) }, env), log);
}

/** The default retention of the server; its operator may have set another. */
const KEPT_MS = 30 * 24 * 3600 * 1_000;

interface Open {
  readonly client: HatchetClient;
  readonly accepted: Accepted;
  readonly waits: Waits;
  readonly submissions: Submissions;
}

function makeAdapter(settings: HatchetSettings, log?: Logger): Adapter {
  let connection: Open | undefined;
  const retentionMs = Math.min(settings.retentionMs, KEPT_MS);
  let closed = false;

  const open = (): Open => {
    if (!connection || closed) throw new BackendUnavailableError("The hatchet backend is not connected.");
    return connection;
  };
  const call = async <T>(run: () => Promise<T>): Promise<T> => {
    try {
      return await run();
    } catch (error) {
      throw toUnavailable(error, settings.where);
    }
  };

  return {
    connect: () =>
      call(async () => {
        const client = settings.client ?? newClient(settings, log);
        const accepted = new Accepted();
        const waits = new Waits(client, accepted, settings);
        const registry = new Registry(client, retentionMs);
        const submissions = new Submissions(client, registry, accepted, waits, settings.where);
        connection = { client, accepted, waits, submissions };
        await client.api.tenantGet(client.tenantId);
        const { data } = await client.api.infoGetVersion();
        log?.info(`hatchet at ${settings.where}`);
        return capabilitiesOf({ ...settings, retentionMs }, data.version);
      }),

    submit: (runs) => call(() => open().submissions.submit(runs)),

    get: (id) => call(() => open().waits.read(id)),

    wait: async (id, signal) => open().waits.wait(id, signal),

    cancel: (id) => call(() => cancelRun(open().client, id, open().accepted)),

    signal: (id, request) => call(() => sendSignal(open().client, id, request, open().accepted)),

    startWorker: (request, runtime) => call(() => HatchetWorker.start(newClient(settings, log), request, runtime, retentionMs)),

    close: async () => {
      closed = true;
      connection?.accepted.clear();
      connection?.waits.close(new BackendClosedError("output"));
    },
  };
}
