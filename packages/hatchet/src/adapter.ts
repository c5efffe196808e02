import { setTimeout as pause } from "node:timers/promises";
import type { HatchetClient } from "@hatchet-dev/typescript-sdk/v1/index.js";
import { IdempotencyCollisionError } from "@hatchet-dev/typescript-sdk/util/errors/idempotency-collision-error.js";
import {
  BackendClosedError,
  BackendUnavailableError,
  mapInLanes,
  type Adapter,
  type AdapterContext,
  type Logger,
  type RunRequest,
  type SubmitOutcome,
} from "@task-backend/core/adapter";
import { Accepted } from "./accepted.ts";
import { capabilitiesOf } from "./capabilities.ts";
import { isBusy, isInternal, newClient, toUnavailable } from "./client.ts";
import { labelsOf } from "./labels.ts";
import { Lanes } from "./lanes.ts";
import { refuseNativeOfSubmission } from "./native.ts";
import { parseOptions, type HatchetOptions, type HatchetSettings } from "./options.ts";
import { hatchetName, KEY, keyOf, Registry } from "./registry.ts";
import { cancelRun, sendSignal } from "./sent.ts";
import { Waits } from "./waits.ts";
import { META, toInput, toMeta, toPriority } from "./wire.ts";
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

/** What `TASK_BACKEND_TYPE=hatchet` loads. */
export function createAdapter({ url, options, env, log, retentionMs }: AdapterContext): Adapter {
  const given = typeof options === "object" && options !== null ? options : {};
  const retention = retentionMs === undefined ? {} : { retention: retentionMs };
  return makeAdapter(parseOptions({ ...retention, ...given, ...(url !== undefined && { url }) }, env), log);
}

/** How many starts are under way at a time, of many submitted together. */
const SUBMIT_LANES = 50;
/** The server queues no keyed run: it starts it at once, in one of few slots that all its clients share, or refuses it. */
const KEYED_LANES = 4;
/** A start that gave way to others comes back, and each time later. Less together than core waits for a call. */
const AGAIN_FIRST_MS = 50;
const AGAIN_MAX_MS = 1_600;
const AGAIN_FOR_MS = 8_000;
/** The server keeps settled runs for so long, unless its operator has said otherwise. */
const KEPT_MS = 30 * 24 * 3600 * 1_000;

interface Open {
  readonly keyed: Lanes;
  readonly client: HatchetClient;
  readonly accepted: Accepted;
  readonly registry: Registry;
  readonly waits: Waits;
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

  const submitOne = async (request: RunRequest, after = ""): Promise<SubmitOutcome> => {
    const { client, registry, waits, accepted, keyed } = open();
    refuseNativeOfSubmission(request);
    const key = keyOf(request);
    await registry.ensure(request, key !== undefined);
    const labels = Object.fromEntries(labelsOf(request).map((label) => [label, { value: 1, required: true }]));
    const options = {
      additionalMetadata: {
        [META]: JSON.stringify(toMeta(request, client.config.namespace ?? "")),
        ...(key !== undefined && { [KEY]: `${key}${after}` }),
      },
      priority: toPriority(request.priority),
      desiredWorkerLabels: labels,
    };
    const start = async (): Promise<string> => {
      const run = await client.admin.runWorkflow(hatchetName(request.name, key !== undefined), toInput(request), options);
      return run.getWorkflowRunId();
    };
    try {
      const id = await (key === undefined ? again(start) : keyed.run(() => again(start)));
      accepted.add(id, request.name);
      return { id, deduplicated: false };
    } catch (error) {
      if (!(error instanceof IdempotencyCollisionError)) throw error;
      const { existingRunExternalId: id } = error;
      // Past the retention that was asked for the key is free again: the next run's follows from the last one's.
      return (await waits.read(id)) ? { id, deduplicated: true } : submitOne(request, `${after}.${id}`);
    }
  };

  return {
    connect: () =>
      call(async () => {
        const client = settings.client ?? newClient(settings, log);
        const accepted = new Accepted();
        connection = {
          keyed: new Lanes(KEYED_LANES),
          client,
          accepted,
          registry: new Registry(client, retentionMs),
          waits: new Waits(client, accepted, settings),
        };
        await client.api.tenantGet(client.tenantId);
        const { data } = await client.api.infoGetVersion();
        log?.info(`hatchet at ${settings.where}`);
        return capabilitiesOf({ ...settings, retentionMs }, data.version);
      }),

    submit: (runs) => call(() => mapInLanes(runs, SUBMIT_LANES, (run) => submitOne(run))),

    get: (id) => call(() => open().waits.read(id)),

    wait: async (id, signal) => open().waits.wait(id, signal),

    cancel: (id) => call(() => cancelRun(open().client, id, open().accepted)),

    signal: (id, request) => call(() => sendSignal(open().client, id, request, open().accepted)),

    startWorker: (request, runtime) => call(() => HatchetWorker.start(newClient(settings, log, true), request, runtime, retentionMs)),

    close: async () => {
      closed = true;
      connection?.accepted.clear();
      connection?.waits.close(new BackendClosedError("output"));
    },
  };
}

/** Two of one key, or of a new name, at the same moment: one transaction gives way. More keyed ones than the server has slots for: all but those. */
async function again<T>(start: () => Promise<T>): Promise<T> {
  const lateMs = performance.now() + AGAIN_FOR_MS;
  for (let waitMs = AGAIN_FIRST_MS; ; waitMs = Math.min(2 * waitMs, AGAIN_MAX_MS)) {
    try {
      return await start();
    } catch (error) {
      if (!(isInternal(error) || isBusy(error)) || performance.now() + waitMs > lateMs) throw error;
      // Those that collide must not come back at the same moment.
      await pause(waitMs * (0.5 + Math.random()));
    }
  }
}
