import { down, engines, olderEngines, running, up } from "./index.ts";
import type { Engine } from "./engine.ts";

const known: Readonly<Record<string, Engine>> = { ...engines, ...olderEngines };

const USAGE = `npm run engines -- up|down|status|env [${Object.keys(known).join("|")} …]

  up      finds each engine by its variable, starts an installed one, or installs it first; prints the variables
  down    stops what up has started
  status  says what runs
  env     prints the variables of what runs, for eval "$(npm run --silent engines -- env)"`;

const say = (line: string): void => console.error(line);

function chosen(names: readonly string[]): Engine[] {
  if (names.length === 0) return [...Object.values(engines), ...Object.values(olderEngines).filter(running)];
  return names.map((name) => {
    const engine = known[name];
    if (!engine) throw new Error(`There is no engine "${name}"; they are ${Object.keys(known).join(", ")}.`);
    return engine;
  });
}

function print(env: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(env)) console.log(`export ${name}=${JSON.stringify(value)}`);
}

async function start(engine: Engine): Promise<void> {
  try {
    const { env, from } = await up(engine, say);
    say(`${engine.name}: ${{ variable: `found through ${engine.variable}`, up: "already up", started: "started" }[from]}`);
    print(env);
  } catch (error) {
    say(`${engine.name}: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

function status(engine: Engine): void {
  const server = running(engine);
  const given = process.env[engine.variable];
  console.log(
    `${engine.name}: ${given ? `${engine.variable} is set` : server ? `up, process ${server.pid}, in ${server.folder}` : "not up"}`,
  );
}

async function main([command, ...names]: readonly string[]): Promise<void> {
  const list = chosen(names);
  if (command === "up") for (const engine of list) await start(engine);
  else if (command === "down") for (const engine of list) say(`${engine.name}: ${(await down(engine)) ? "stopped" : "was not up"}`);
  else if (command === "status") for (const engine of list) status(engine);
  else if (command === "env") for (const engine of list) print(running(engine)?.env ?? {});
  else {
    say(USAGE);
    process.exitCode = command === undefined || command === "--help" ? 0 : 2;
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  say((error as Error).message);
  process.exitCode = 2;
}
