import { spawn, type ChildProcess } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { getBackend, type Run, type TaskResult } from "@task-backend/core";
import { progressBar } from "./progress-bar.ts";
import { pipeline } from "./tasks.ts";

/*
 * The producer: it submits a chain for every README.md under node_modules, which a separate worker process runs, and prints the
 * results. Neither this file nor tasks.ts knows the engine: TASK_BACKEND_TYPE selects it.
 */

const example = dirname(dirname(fileURLToPath(import.meta.url)));
const root = dirname(dirname(example));
const store = join(example, ".task-backend/documents");

type Output = typeof pipeline extends { readonly "~out"?: infer Out } ? Out : never;
type Settled = { path: string; result: TaskResult<NonNullable<Output>> };

async function main(): Promise<void> {
  const paths = findReadmes(join(root, "node_modules"));
  rmSync(store, { recursive: true, force: true });
  const backend = await getBackend();
  const worker = startWorker();
  try {
    const startedAt = performance.now();
    const runs = await backend.submitMany(paths.map((path, index) => ({ task: pipeline, input: { path, store, ...faultOf(index) } })));
    console.log(`Submitted ${runs.length} documents to ${backend.capabilities.engine} in ${Math.round(performance.now() - startedAt)} ms`);
    const settled = await waitForAll(runs, paths);
    const seconds = (performance.now() - startedAt) / 1_000;
    report(settled, seconds);
    const failed = settled.filter(({ result }) => result.status !== "completed").length;
    const stored = readdirSync(store).length;
    if (failed !== 1 || stored !== runs.length - 1)
      throw new Error(`Expected one failure and ${runs.length - 1} stored documents; got ${failed} and ${stored}.`);
  } finally {
    await stop(worker);
    await backend.close();
  }
}

/** The fault of a document: one fails at its first attempt, and one at every attempt. */
function faultOf(index: number): { fault?: "once" | "always" } {
  return index === 0 ? { fault: "once" } : index === 1 ? { fault: "always" } : {};
}

/** Starts the command of @task-backend/worker, as an operator would. */
function startWorker(): ChildProcess {
  const command = ["--queues", "documents", "--tasks", "./src/tasks.ts", "--concurrency", "20", "--log-level", "warn"];
  console.log(`$ task-backend-worker ${command.join(" ")}`);
  const manifest = createRequire(import.meta.url).resolve("@task-backend/worker/package.json");
  return spawn(process.execPath, [join(dirname(manifest), "dist/cli.js"), ...command], { cwd: example, stdio: "inherit" });
}

async function stop(worker: ChildProcess): Promise<void> {
  if (worker.exitCode !== null) return;
  const exited = new Promise((resolve) => worker.once("exit", resolve));
  worker.kill("SIGTERM");
  await exited;
}

async function waitForAll(runs: readonly Run[], paths: readonly string[]): Promise<Settled[]> {
  const bar = progressBar(runs.length, "Running extract -> analyse -> store");
  const settled = await Promise.all(
    runs.map(async (run, index) => {
      // The result tells how it failed.
      await run.output({ timeout: "5m" }).catch(() => {});
      bar.advance();
      return { path: paths[index] as string, result: (await run.result()) as Settled["result"] };
    }),
  );
  bar.stop();
  return settled;
}

function report(settled: readonly Settled[], seconds: number): void {
  const completed = settled.flatMap(({ result }) => (result.status === "completed" ? [result] : []));
  const sum = (of: (output: (typeof completed)[0]["output"]) => number): number =>
    completed.reduce((total, { output }) => total + of(output), 0);
  const languages = new Map<string, number>();
  for (const { output } of completed)
    for (const [language, count] of Object.entries(output.languages)) languages.set(language, (languages.get(language) ?? 0) + count);
  const top = [...languages].sort((a, b) => b[1] - a[1]).slice(0, 5);

  console.table({
    documents: settled.length,
    completed: completed.length,
    failed: settled.length - completed.length,
    words: sum(({ words }) => words),
    "code fences": top.map(([language, count]) => `${language} ${count}`).join(", "),
    "broken relative links": sum(({ brokenLinks }) => brokenLinks.length),
    seconds: Number(seconds.toFixed(2)),
    "documents / second": Math.round(settled.length / seconds),
    "steps / second": Math.round((completed.length * 3) / seconds),
  });
  console.log("Slowest:");
  const slowest = [...settled].sort((a, b) => duration(b.result) - duration(a.result)).slice(0, 5);
  console.table(slowest.map(({ path, result }) => ({ document: relative(root, path), ms: duration(result), status: result.status })));
  console.log("Failed:");
  const failed = settled.flatMap(({ path, result }) =>
    "error" in result && result.error
      ? [{ document: relative(root, path), step: result.error.step, code: result.error.code, message: result.error.message.slice(0, 60) }]
      : [],
  );
  console.table(failed);
}

function duration({ startedAt, finishedAt }: Settled["result"]): number {
  return startedAt && finishedAt ? finishedAt.getTime() - startedAt.getTime() : 0;
}

function findReadmes(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith("README.md"))
    .sort()
    .map((path) => join(folder, path));
}

process.chdir(example);
await main();
