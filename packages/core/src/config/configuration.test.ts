import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, expect, test } from "vitest";
import { createBackend } from "../submit/backend.ts";
import { readConfiguration } from "./configuration.ts";
import { getBackend } from "./get-backend.ts";
import { loadAdapter } from "./load-adapter.ts";
import { loadDefinitions } from "./load-definitions.ts";
import { silentLogger } from "../values/log.ts";
import type { Adapter, RunRequest } from "../port/port.ts";
import { defineTask } from "../define/task.ts";

const folder = mkdtempSync(join(tmpdir(), "configuration-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function application(name: string, files: Record<string, string> = {}): string {
  const root = join(folder, name);
  for (const [path, text] of Object.entries({ "package.json": "{}", ...files })) {
    mkdirSync(join(root, path, ".."), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

test("argument over environment over file, and the default outside production only", async () => {
  const root = application("precedence", { "task-backend.config.json": '{ "type": "hatchet", "url": "from-file", "retention": "1d" }' });
  expect(await readConfiguration({}, {}, root)).toMatchObject({ type: "hatchet", url: "from-file", retention: "1d" });
  expect(await readConfiguration({}, { TASK_BACKEND_TYPE: "bullmq", TASK_BACKEND_URL: "from-env" }, join(root))).toMatchObject({
    type: "bullmq",
    url: "from-env",
  });
  expect(await readConfiguration({ type: "temporal", url: "given" }, { TASK_BACKEND_TYPE: "bullmq" }, root)).toMatchObject({
    type: "temporal",
    url: "given",
    typeFrom: "the option type",
  });
  const bare = application("bare");
  expect(await readConfiguration({}, {}, bare)).toMatchObject({ type: "sqlite", typeFrom: "the default", root: bare });
  await expect(readConfiguration({}, { NODE_ENV: "production" }, bare)).rejects.toThrow(
    /TASK_BACKEND_TYPE is not set, and with NODE_ENV=production there is no default/,
  );
});

test("a configuration file in TypeScript and YAML; one that is wrong or missing is named", async () => {
  const typed = application("typed", {
    "task-backend.config.ts": 'export default { type: "sqlite" as string, tasks: { resize: { timeout: "1m" } } };',
  });
  expect(await readConfiguration({}, {}, typed)).toMatchObject({ type: "sqlite", tasks: { resize: { timeout: "1m" } } });
  const yaml = application("yaml", { "task-backend.config.yaml": "type: bullmq\ntasks:\n  resize:\n    retry:\n      attempts: 7\n" });
  expect(await readConfiguration({}, {}, yaml)).toMatchObject({ type: "bullmq", tasks: { resize: { retry: { attempts: 7 } } } });
  const wrong = application("wrong", { "task-backend.config.json": '{ "tasks": { "resize": { "priority": "highest" } } }' });
  await expect(readConfiguration({}, {}, wrong)).rejects.toThrow(
    /task-backend\.config\.json does not fit: tasks: The configured policy of "resize": priority is "highest"/,
  );
  await expect(readConfiguration({ config: "nowhere.yaml" }, {}, wrong)).rejects.toThrow(/nowhere\.yaml does not exist/);
});

test("unknown and missing backends: the known types, and the line that installs", async () => {
  const root = application("adapters", {
    "mine.ts": "export const createAdapter = ({ url }: { url?: string }) => ({ url });",
    "empty.js": "export const nothing = 1;",
    "node_modules/their-backend/package.json": '{ "name": "their-backend", "type": "module", "exports": "./index.js" }',
    "node_modules/their-backend/index.js": 'export const createAdapter = () => ({ name: "theirs" });',
  });
  const load = (type: string): Promise<Adapter> =>
    loadAdapter({ type, typeFrom: "TASK_BACKEND_TYPE", root, url: "some-url" }, {}, silentLogger);
  await expect(load("rabbit-mq-backend")).rejects.toThrow(
    /Unknown task backend "rabbit-mq-backend" \(from TASK_BACKEND_TYPE\)\. The types are sqlite, bullmq, temporal, hatchet; .*installed/,
  );
  for (const [given, meant] of [
    ["sqlit", "sqlite"],
    ["SQLite", "sqlite"],
    ['"bullmq"', "bullmq"],
    ["temproal", "temporal"],
    ["redis", "bullmq"],
    ["@task-backend/sqlit", "@task-backend/sqlite"],
  ] as const) {
    const { message } = (await load(given).catch((error: unknown) => error)) as Error;
    expect(message).toContain(`Did you mean "${meant}"?`);
    expect(message).not.toContain("npm install");
  }
  await expect(load("constructor")).rejects.toThrow(/\(from TASK_BACKEND_TYPE\)\. The types are/);
  const { message, cause } = (await load("redis://:marked@host:1").catch((error: unknown) => error)) as Error;
  expect(message).toMatch(/it is a URL \(redis:\/\/host:1\).*TASK_BACKEND_URL/);
  expect(`${message} ${String(cause)}`).not.toContain("marked");
  await expect(load("./empty.js")).rejects.toThrow(/exports no createAdapter/);
  expect(await load("./mine.ts")).toEqual({ url: "some-url" });
  expect(await load("their-backend")).toEqual({ name: "theirs" });
});

test("definitions are loaded by path, glob and package, TypeScript included; a duplicate names both files", async () => {
  const core = join(import.meta.dirname, "../../dist/index.js");
  const task = (name: string): string =>
    `import { defineTask } from ${JSON.stringify(core)}; export const ${name} = defineTask({ name: "${name}", handler: async () => 1 });`;
  const root = application("tasks", {
    "tasks/one.ts": `${task("one")} export interface Unused { a: number } export const other: number = 3;`,
    "tasks/two.js": task("two"),
    "tasks/again.mjs": task("one"),
    "none.js": "export const x = 1;",
    "broken.js": "import './missing-neighbour.js';",
    "node_modules/task-package/package.json": '{ "name": "task-package", "type": "module", "exports": "./index.js" }',
    "node_modules/task-package/index.js": task("packaged"),
  });
  const namesOf = async (...names: string[]): Promise<string[]> =>
    (await loadDefinitions(names, root)).flatMap(({ definitions }) => definitions.map(({ name }) => name));
  expect(await namesOf("./tasks/one.ts", "tasks/two.js", "task-package")).toEqual(["one", "two", "packaged"]);
  expect(await namesOf("./tasks/{one,two}.*", "./tasks/one.ts")).toEqual(["one", "two"]);
  await expect(namesOf("./none.js")).rejects.toThrow(/"\.\/none\.js" exports no task/);
  await expect(namesOf("./nowhere.ts")).rejects.toThrow(/There is no module "\.\/nowhere\.ts".*check the path/);
  await expect(namesOf("no-such-package")).rejects.toThrow(/no module "no-such-package".*a package that is installed/);
  await expect(namesOf("./broken.js")).rejects.toThrow(/"\.\/broken\.js" failed to load: .*missing-neighbour/);
  await expect(namesOf("./nothing/**.ts")).rejects.toThrow(/No file matches/);
  const backend = await createBackend(recorder([]), { log: silentLogger });
  await expect(backend.load(["./tasks/*"], root)).rejects.toThrow(
    /"one" is defined twice: in \.\/tasks\/again\.mjs and in \.\/tasks\/one\.ts/,
  );
});

test("a configuration file that cannot be read: the file and the line, and nothing of what it holds", async () => {
  const secret = "redis://:marked@host";
  const root = application("unreadable", {
    "bad.yaml": `type: bullmq\nurl: ${secret}\n  retention: [1\n`,
    "bad.json": `{\n  "type": "bullmq",\n  "url": "${secret}" oops\n}`,
    "token.json": `{\n  "url": "${secret}",\n  oops: 1 }`,
    "bad.ts": `export default {\n  url: "${secret}" oops,\n};`,
    "throws.ts": `const url = "${secret}";\nexport default { url, type: nowhere };`,
    "none.ts": `export const config = { url: "${secret}" };`,
  });
  for (const [name, place] of [
    ["bad.yaml", "bad.yaml:2:"],
    ["bad.json", "bad.json:3:33"],
    ["token.json", "token.json:3:3"],
    ["bad.ts", "bad.ts:2:"],
    ["throws.ts", "throws.ts:2:"],
    ["none.ts", "no default export"],
  ] as const) {
    const error = (await readConfiguration({ config: name }, {}, root).catch((thrown: unknown) => thrown)) as Error;
    expect(error.message).toContain(place);
    expect(error.message).not.toContain("\n");
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain("marked");
  }
});

test("unknown keys and options are refused with the nearest known name, also in code", async () => {
  const root = application("unknown", {
    "top.yaml": "retentoin: 1d",
    "worker.yaml": "worker: { modul: [a] }",
    "retry.yaml": "tasks: { resize: { retry: { attempt: 7 } } }",
    "duration.yaml": "tasks: { resize: { timeout: 5 minutes } }",
  });
  const read = (config: string): Promise<unknown> => readConfiguration({ config }, {}, root);
  await expect(read("top.yaml")).rejects.toThrow(/top level: unknown key "retentoin"\. Did you mean "retention"\?/);
  await expect(read("worker.yaml")).rejects.toThrow(/worker: unknown key "modul"\. Did you mean "modules"\? The keys are queues, modules/);
  await expect(read("retry.yaml")).rejects.toThrow(/tasks: .* of "resize": retry has no option "attempt" \(did you mean "attempts"\?\)/);
  await expect(read("duration.yaml")).rejects.toThrow(/tasks: .* of "resize": timeout is "5 minutes"; give milliseconds/);
  await expect(getBackend({ retentoin: "1d" } as object)).rejects.toThrow(/no option "retentoin" \(did you mean "retention"\?\)/);
  await expect(createBackend(recorder([]), { calTimeout: "1s" } as object)).rejects.toThrow(
    /no option "calTimeout" \(did you mean "callTimeout"\?\)/,
  );
  const tasks = { resize: { retry: { attempt: 7 } } } as Record<string, object>;
  await expect(createBackend(recorder([]), { tasks })).rejects.toThrow(/"resize": retry has no option "attempt"/);
  await expect(getBackend({ type: "sqlite", url: "sqlite::memory:", tasks })).rejects.toThrow(/"resize": retry has no option "attempt"/);
  for (const url of ["", " ", 5, null]) await expect(getBackend({ url } as never)).rejects.toThrow(/The option url is/);
  for (const config of [5, null, true]) await expect(getBackend({ config } as never)).rejects.toThrow(/The option config is/);
  await expect(getBackend({ shared: "yes" } as never)).rejects.toThrow(/The option shared of getBackend is "yes"/);
});

test("blank variables count as unset; two configuration files are one too many; a file of another kind is refused", async () => {
  const root = application("blank", { "task-backend.config.json": '{ "type": "bullmq", "url": "from-file" }', "x.toml": "a = 1" });
  expect(await readConfiguration({}, { TASK_BACKEND_TYPE: " ", TASK_BACKEND_URL: "\t" }, root)).toMatchObject({
    type: "bullmq",
    url: "from-file",
  });
  expect(await readConfiguration({}, { TASK_BACKEND_URL: " redis://h \n" }, root)).toMatchObject({ url: "redis://h" });
  await expect(readConfiguration({ config: "" }, {}, root)).rejects.toThrow(/configuration file "" does not exist/);
  await expect(readConfiguration({ config: "." }, {}, root)).rejects.toThrow(/does not exist/);
  await expect(readConfiguration({ config: "x.toml" }, {}, root)).rejects.toThrow(/its name must end in ts, mts/);
  writeFileSync(join(root, "task-backend.config.yaml"), "type: sqlite");
  await expect(readConfiguration({}, {}, root)).rejects.toThrow(/There are 2 configuration files/);
});

test("the operator's policy is over the definition, at submit and in the worker", async () => {
  const requests: RunRequest[] = [];
  const backend = await createBackend(recorder(requests), {
    log: silentLogger,
    tasks: { resize: { queue: "slow", priority: "low", timeout: "1m", retry: { attempts: 9 } } },
  });
  const resize = defineTask({ name: "resize", queue: "fast", priority: "urgent", handler: async () => 1 });
  await backend.submit(resize, null);
  await backend.submit(resize, null, { queue: "given", priority: "high" });
  expect(requests).toMatchObject([
    { queue: "slow", priority: "low", definition: { timeoutMs: 60_000, retry: { attempts: 9 } } },
    { queue: "given", priority: "high" },
  ]);
  expect(() => backend.register(resize, defineTask({ name: "resize", handler: async () => 2 }))).toThrow(/"resize" is defined twice/);
});

test("getBackend() without arguments is one for the process, until it is closed", async () => {
  const url = `sqlite:${join(folder, "shared.db")}`;
  process.env["TASK_BACKEND_TYPE"] = "sqlite";
  process.env["TASK_BACKEND_URL"] = url;
  try {
    const [one, two] = await Promise.all([getBackend(), getBackend()]);
    expect(one).toBe(two);
    await one.close();
    await expect(one.submit("x", 1)).rejects.toThrow(/closed/);
    const three = await getBackend();
    expect(three).not.toBe(one);
    await expect(getBackend({ shared: true })).rejects.toThrow(/this process has a shared backend/);
    await three.close();
    await expect(getBackend({ shared: true, type: "nothing" })).rejects.toThrow(/Unknown task backend/);
    const four = await getBackend({ shared: true, log: silentLogger });
    expect(await getBackend()).toBe(four);
    await four.close();
  } finally {
    delete process.env["TASK_BACKEND_TYPE"];
    delete process.env["TASK_BACKEND_URL"];
  }
});

/** A fake engine that records what core would send to one. */
function recorder(requests: RunRequest[]): Adapter {
  const features = new Proxy({}, { get: () => "native" }) as never;
  return {
    connect: async () => ({
      engine: "recorder",
      version: "0",
      where: "here",
      features,
      limits: { maxPayloadBytes: 1e6, priorityLevels: 5, retentionMs: 1e9, recoveryMs: 1, timerLatenessMs: 1, dispatchMs: 0 },
    }),
    submit: async (runs) => {
      requests.push(...runs);
      return runs.map((_, index) => ({ id: String(index), deduplicated: false }));
    },
    get: async () => undefined,
    wait: async () => undefined,
    cancel: async () => "unknown",
    signal: async () => "unknown",
    startWorker: async () => ({ healthy: () => true, stop: async () => {} }),
    close: async () => {},
  };
}
