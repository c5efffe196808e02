import { expect, test } from "vitest";
import { DefinitionSet } from "../define/definition-set.ts";
import { taskRef } from "../define/task.ts";
import { defineWorkflow, type WorkflowContext } from "../define/workflow.ts";
import type { JournalEntry, TickResult } from "../port/port.ts";
import { toJson, type Json } from "../values/json.ts";
import type { Logger } from "../values/log.ts";
import { createAdvance } from "./advance.ts";

const rewrite = taskRef<number, number>({ name: "rewrite" });

/** Waits for a decision in a race, again after each rejection; the losers of earlier rounds stay open. */
async function review(wf: WorkflowContext): Promise<number> {
  const either = (names: string[]) => Promise.race(names.map((name) => wf.waitForSignal(name).then(() => name)));
  for (let draft = 1; ; draft = await wf.run(rewrite, draft)) {
    if ((await either(["approved", "rejected"])) === "approved") return draft;
  }
}

/** One run of the function and its events: each event is one tick, and the commands of the answers are recorded. */
function runOf(handler: (wf: WorkflowContext) => unknown) {
  const journal: JournalEntry[] = [];
  const warnings: string[] = [];
  const log: Logger = { debug() {}, info() {}, error() {}, warn: (message) => void warnings.push(message) };
  const fresh = () => {
    const definitions = new DefinitionSet();
    definitions.add(defineWorkflow({ name: "flow", handler }), "test");
    return createAdvance({ definitions, check: (value, what) => toJson(value, what), log, now: () => 0 });
  };
  const ask = ({ advance }: ReturnType<typeof fresh>, from: number): Promise<TickResult> => {
    const commandsSeen = journal.filter(({ type }) => type === "command").length;
    const run = { id: "1", name: "flow", version: "1", queue: "default", input: null, headers: {}, startedAtMs: 0 };
    return advance({ ...run, entries: journal.slice(from), from, seen: from, commandsSeen, retries: 0 });
  };
  let live = fresh();
  let fed = 0;
  const tick = async (...events: JournalEntry[]): Promise<TickResult> => {
    journal.push(...events);
    const result = await ask(live, fed);
    fed = journal.length;
    if (result.do === "wait") for (const { n, key } of result.commands) journal.push({ type: "command", n, key });
    return result;
  };
  const crash = (): void => {
    live = fresh();
    fed = 0;
  };
  return { journal, warnings, tick, crash, replay: () => ask(fresh(), 0) };
}

const signal = (name: string, payload: Json = null): JournalEntry => ({ type: "signal", name, payload, atMs: 1 });
const settled = (n: number, output: Json): JournalEntry => ({ type: "settled", n, atMs: 1, outcome: { status: "completed", output } });
const command = (n: number, key: string): JournalEntry => ({ type: "command", n, key });
const keysOf = (journal: readonly JournalEntry[]) => journal.flatMap((entry) => (entry.type === "command" ? [entry.key] : []));

test("a race in a loop: the signal goes to the wait of the newest round, live and at each replay", async () => {
  for (const crashes of [false, true]) {
    const { journal, warnings, tick, crash, replay } = runOf(review);
    const maybe = (): void => {
      if (crashes) crash();
    };
    await tick();
    maybe();
    await tick(signal("rejected"));
    maybe();
    await tick(settled(2, 2));
    maybe();
    expect(await tick(signal("approved"))).toEqual({ do: "complete", output: 2 });
    expect(await replay()).toEqual({ do: "complete", output: 2 });
    expect(keysOf(journal).filter((key) => key.startsWith("await"))).toEqual([
      "await:approved:",
      "await:rejected:",
      "await-newest:approved:",
      "await:rejected:",
    ]);
    expect(warnings).toContainEqual(expect.stringMatching(/signal "approved" with call 3 while call 0, which it made before, still does/));
  }
});

test("waits of one round are served in the order they were made in, also those of a later round", async () => {
  const { tick, warnings } = runOf(async (wf) => {
    const both = () => Promise.all([wf.waitForSignal("go"), wf.waitForSignal("go")]);
    void wf.waitForSignal("go");
    await wf.sleep(1);
    return [await both(), await both()];
  });
  await tick();
  await tick({ type: "fired", n: 1, atMs: 1 });
  const payloads = [1, 2, 3, 4].map((n) => signal("go", n));
  expect(await tick(...payloads)).toEqual({
    do: "complete",
    output: [
      [1, 2],
      [3, 4],
    ],
  });
  expect(warnings).toHaveLength(4);
  const plain = runOf((wf) => Promise.all([wf.waitForSignal("go"), wf.waitForSignal("go")]));
  await plain.tick();
  expect(await plain.tick(signal("go", 1), signal("go", 2))).toEqual({ do: "complete", output: [1, 2] });
  expect(plain.warnings).toEqual([]);
});

test("a journal from before this rule is replayed in the order of then, and new waits of its run go first", async () => {
  const order = async (wf: WorkflowContext): Promise<unknown> => {
    const first = wf.waitForSignal("go").then((payload) => ["first", payload]);
    await wf.sleep(1);
    const second = wf.waitForSignal("go").then((payload) => ["second", payload]);
    const winner = await Promise.race([first, second]);
    await wf.sleep(1);
    const third = wf.waitForSignal("go").then((payload) => ["third", payload]);
    return [winner, await Promise.race([first, second, third].filter((_, n) => n > 0))];
  };
  const { journal, tick } = runOf(order);
  const before = [command(0, "await:go:"), command(1, "sleep:1"), { type: "fired", n: 1, atMs: 1 } as const, command(2, "await:go:")];
  expect(await tick(...before, signal("go", 1))).toMatchObject({ do: "wait", commands: [{ key: "sleep:1" }] });
  await tick({ type: "fired", n: 3, atMs: 2 });
  expect(keysOf(journal).at(-1)).toBe("await-newest:go:");
  expect(await tick(signal("go", 2))).toEqual({
    do: "complete",
    output: [
      ["first", 1],
      ["third", 2],
    ],
  });
});
