import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { getBackend, RunSettledError, silentLogger, type Run, type TaskBackend } from "@task-backend/core";
import { audit, type Submitted, type Violations } from "./audit.ts";
import { grounds, type Ground, type Road } from "./ground.ts";
import { planFaults, type Fault } from "./plan.ts";
import { Random } from "./random.ts";
import { faultyChain, faultyStep, faultyTask, isCancelled, listens, WORDS } from "./tasks.ts";
import { untilAccepted } from "./until-accepted.ts";
import { WorkerPlace } from "./worker-process.ts";

const WORKERS = 3;
/** Runs under way: enough that each fault hits many. */
const BACKLOG = 100;
const CHAINS = 0.25;
const PAUSE_MS = 100;
const SLOW_MS = 150;
/** At the latest so long after its submit a run is cancelled. */
const CANCELS_MS = 3_000;
/** Beyond the time in which lost workers are noticed: one run may be lost several times in a row. */
const PATIENCE_MS = 60_000;

interface Outcome {
  readonly submitted: readonly Submitted[];
  readonly violations: Violations;
  readonly surprises: readonly string[];
  readonly faults: Readonly<Record<string, number>>;
  readonly settledAfterMs: number;
}

const { values } = parseArgs({
  options: {
    backend: { type: "string" },
    seed: { type: "string", default: `${Date.now() % 1_000_000}` },
    minutes: { type: "string", default: "2" },
    json: { type: "boolean", default: false },
    /** When something was found, all is left as it is until SIGINT, for those who look for the cause. */
    keep: { type: "boolean", default: false },
  },
});
const chosen = Object.keys(grounds).filter(
  (name) => values.backend === undefined || name === values.backend || name.startsWith(`${values.backend}-`),
);
const [seed, minutes] = [Number(values.seed), Number(values.minutes)];
if (chosen.length === 0) throw new Error(`--backend ${values.backend} is unknown; there are ${Object.keys(grounds).join(", ")}.`);
if (!Number.isInteger(seed) || !(minutes > 0))
  throw new Error(`--seed ${values.seed} must be a whole number, --minutes ${values.minutes} above 0.`);

let failed = false;
for (const backend of chosen) {
  const outcome = await underFaults(backend);
  failed = report(backend, outcome) || failed;
}
// Some SDKs keep the process.
process.exit(failed ? 1 : 0);

async function underFaults(name: string): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), "task-backend-effects-"));
  const file = join(folder, "effects");
  writeFileSync(file, "");
  const ground = await (grounds[name] as () => Promise<Ground>)();
  const roads = await Promise.all(Array.from({ length: WORKERS + 1 }, () => ground.road()));
  const places = roads.slice(0, WORKERS).map((road) => new WorkerPlace(road));
  try {
    const backend = await connect(roads[WORKERS] as Road);
    await Promise.all(places.map((place) => place.start()));
    const { recoveryMs } = backend.capabilities.limits;
    const plan = planFaults(seed, minutes * 60_000, WORKERS, roads[0]?.proxies.length !== 0, recoveryMs + 1_000);
    const surprises: string[] = [];
    const producing = produce(backend, file, Date.now() + minutes * 60_000, surprises);
    await carryOut(plan, ground, places, roads);
    const submitted = await producing;
    const settledAfterMs = await untilSettled(submitted, PATIENCE_MS + 4 * recoveryMs);
    const violations = await audit(backend, submitted, file);
    if (values.keep && Object.values(violations).some((who) => who.length > 0)) {
      console.log(JSON.stringify({ violations, file, env: roads[WORKERS]?.env }, null, 2));
      await once(process, "SIGINT");
    }
    await Promise.all(places.map((place) => place.stop()));
    await backend.close();
    const faults: Record<string, number> = {};
    for (const { kind } of plan) faults[kind] = (faults[kind] ?? 0) + 1;
    for (const place of places) surprises.push(...place.surprises);
    return { submitted, violations, surprises, faults, settledAfterMs };
  } finally {
    await Promise.all(places.map((place) => place.kill()));
    for (const { proxies } of roads) for (const proxy of proxies) await proxy.cut();
    await ground.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function connect({ env }: Road): Promise<TaskBackend> {
  // The backend before this one had a URL, which not all have.
  delete process.env["TASK_BACKEND_URL"];
  Object.assign(process.env, env);
  const backend = await getBackend({
    type: env["TASK_BACKEND_TYPE"] as string,
    ...(env["TASK_BACKEND_URL"] && { url: env["TASK_BACKEND_URL"] }),
    log: silentLogger,
  });
  return backend.register(faultyTask, faultyStep, faultyChain);
}

/** Submits as runs end, each until it is accepted, under a key of its own. Answers with what was accepted. */
async function produce(backend: TaskBackend, file: string, untilMs: number, surprises: string[]): Promise<readonly Submitted[]> {
  const random = new Random(seed + 1);
  const submitted: Submitted[] = [];
  const meddling: Promise<void>[] = [];
  const meddle = (what: string, work: Promise<void>): void => {
    meddling.push(work.catch((error: unknown) => void surprises.push(`${what}: ${String(error)}`)));
  };
  let n = 0;
  const lane = async (): Promise<void> => {
    while (Date.now() < untilMs) {
      const number = n++;
      const type = random.next() < CHAINS ? "chain" : "task";
      const run = await submitUntilAccepted(backend, number, type, file);
      const one: Submitted = { n: number, type, id: run.id };
      submitted.push(one);
      if (type === "chain" && listens(number)) meddle("a signal", tell(run));
      if (isCancelled(number)) {
        const cancelsMs = random.between(0, CANCELS_MS);
        meddle(
          "a cancel",
          pause(cancelsMs).then(() => untilAccepted(() => run.cancel())),
        );
      }
      // A lane goes on with the next when this one has ended, however long it takes, and is left behind at the end.
      const told = tellOf(run).then((what) => (one.told = what));
      await Promise.race([told, new Promise((resolve) => setTimeout(resolve, Math.max(untilMs - Date.now(), 0)).unref())]);
    }
  };
  await Promise.all(Array.from({ length: BACKLOG }, lane));
  await Promise.all(meddling);
  return submitted;
}

function submitUntilAccepted(backend: TaskBackend, n: number, type: Submitted["type"], file: string): Promise<Run<number>> {
  const options = { idempotencyKey: `${seed}-${type}-${n}` };
  return untilAccepted(() => backend.submit(type === "task" ? faultyTask : faultyChain, { n, file }, options));
}

/** Each word once and in order, however often it has to be sent. One that was cancelled hears no more. */
async function tell(run: Run<number>): Promise<void> {
  for (const word of WORDS) {
    const settled = await untilAccepted(() => run.signal("word", word, { dedupeId: word })).catch((error: unknown) => error);
    if (settled instanceof RunSettledError) return;
    if (settled !== undefined) throw settled;
  }
}

async function tellOf(run: Run<number>): Promise<NonNullable<Submitted["told"]>> {
  try {
    return { output: await untilAccepted(() => run.output()) };
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return { code: code ?? message };
  }
}

/** Answers how long it took after the last fault. */
async function untilSettled(submitted: readonly Submitted[], patienceMs: number): Promise<number> {
  const startedAt = Date.now();
  while (Date.now() < startedAt + patienceMs && submitted.some(({ told }) => told === undefined)) await pause(PAUSE_MS);
  return Date.now() - startedAt;
}

/** Each at its time; all are over when this resolves. */
async function carryOut(plan: readonly Fault[], ground: Ground, places: readonly WorkerPlace[], roads: readonly Road[]): Promise<void> {
  const startedAt = Date.now();
  const under = new Set<Promise<void>>();
  let restarting = false;
  for (const fault of plan) {
    await pause(fault.atMs - (Date.now() - startedAt));
    if (fault.kind === "restart" && restarting) continue;
    if (fault.kind === "restart") restarting = true;
    const one = inflict(fault, ground, places, roads).finally(() => {
      if (fault.kind === "restart") restarting = false;
      under.delete(one);
    });
    under.add(one);
  }
  await Promise.all(under);
}

async function inflict(
  { kind, place, forMs }: Fault,
  ground: Ground,
  places: readonly WorkerPlace[],
  roads: readonly Road[],
): Promise<void> {
  const worker = places[place];
  const proxies = roads[place]?.proxies ?? [];
  switch (kind) {
    case "kill":
      await worker?.kill();
      await pause(forMs);
      return worker?.start();
    case "freeze":
      worker?.freeze();
      await pause(forMs);
      return worker?.thaw();
    case "clock":
      worker?.jump();
      await pause(forMs);
      return worker?.jump();
    case "drop":
      return proxies.forEach((proxy) => proxy.drop());
    case "slow":
      for (const proxy of proxies) proxy.slow(SLOW_MS);
      await pause(forMs);
      return proxies.forEach((proxy) => proxy.slow(0));
    case "cut":
      await Promise.all(proxies.map((proxy) => proxy.cut()));
      await pause(forMs);
      return void (await Promise.all(proxies.map((proxy) => proxy.restore())));
    case "restart":
      return ground.interrupt();
  }
}

/** Prints what was found. Answers whether something was. */
function report(backend: string, { submitted, violations, surprises, faults, settledAfterMs }: Outcome): boolean {
  const { lost, settledTwice, stepsRunAgain, wrongResults, neverSettled, waitsMissed } = violations;
  const settled = submitted.length - lost.length - neverSettled.length;
  const counts = { lost, settledTwice, stepsRunAgain, wrongResults, neverSettled, waitsMissed };
  if (values.json)
    console.log(
      JSON.stringify({ backend, seed, minutes, faults, submitted: submitted.length, settled, settledAfterMs, ...counts, surprises }),
    );
  else {
    const chains = submitted.filter(({ type }) => type === "chain").length;
    const told = Object.entries(faults).map(([kind, count]) => `${kind} ${count}`);
    console.log(`${backend}, seed ${seed}, ${minutes} min, ${WORKERS} workers; faults: ${told.join(", ")}`);
    console.log(
      `  submitted ${submitted.length} (${chains} chains), settled ${settled} (the last ${Math.round(settledAfterMs / 1_000)} s after the last fault), lost ${lost.length}, settled twice ${settledTwice.length}, ` +
        `recorded steps run again ${stepsRunAgain.length}, wrong results ${wrongResults.length}, never settled ${neverSettled.length}, ` +
        `waits missed ${waitsMissed.length}`,
    );
    for (const [what, who] of Object.entries({ ...counts, surprises }))
      for (const one of who.slice(0, 10)) console.log(`  ${what}: ${one.slice(0, 600)}`);
  }
  const bad = Object.values(counts).some((who) => who.length > 0) || surprises.length > 0;
  if (bad) console.log(`  again: npm run faults -- --backend ${backend} --seed ${seed} --minutes ${minutes}`);
  return bad;
}
