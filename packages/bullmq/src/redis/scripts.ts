import bullmqScripts from "bullmq/dist/cjs/scripts/index.js";
import { MAX_DUE_MS, SIGNAL_BEGINS } from "../mapping.ts";

/*
 * Our Lua scripts contain BullMQ's. A script of BullMQ becomes a local function, so that a check, the journal and the move of
 * the job are one atomic step, and the move is exactly that of the installed BullMQ.
 *
 * Keys of a workflow run, beside BullMQ's key of the job; all are deleted when it has settled:
 *   KEY:tb          hash: startedAt, version, seen, commands, retries, stalls, parked, cancelled, error, outbox, closing, ending,
 *                   child:N = run id, signal:DEDUPE_ID
 *   KEY:tb:journal  list of entries, JSON each
 *   KEY:tb:timers   sorted set of command numbers by their due time
 */

const PROMOTE_KEYS = 9;
/** The number of keys of a workflow run: hash, journal, timers, and those of promote. */
const WORKFLOW_KEYS = 3 + PROMOTE_KEYS;
const FINISH_KEYS = 14;
const DELAY_KEYS = 11;

/** The field in a job's own hash, beside BullMQ's fields, for the kind that a worker found for a run submitted by name only. */
export const KIND_FIELD = "tbKind";

function native(name: string): string {
  const script = bullmqScripts[name];
  if (!script) throw new Error(`This BullMQ has no script ${name}.`);
  return `local function ${name}(KEYS, ARGV)\n${script.content}\nend\n`;
}

const SLICE = `
local function slice(list, from, count)
  local result = {}
  for i = 0, count - 1 do result[i + 1] = list[from + i] end
  return result
end
`;

/** Recognises a job by its name and time: BullMQ has other keys beside jobs, such as PREFIX:QUEUE:meta. */
const IS_JOB = `
local function isJob(key)
  if redis.call("TYPE", key).ok ~= "hash" then return false end
  return redis.call("HEXISTS", key, "name") == 1 and redis.call("HEXISTS", key, "timestamp") == 1
end
`;

/** Records the timers that are due, in their order. */
const FIRE = `
local function fire(journal, timers, now)
  local found = redis.call("ZRANGEBYSCORE", timers, "-inf", now, "WITHSCORES")
  local due = {}
  for i = 1, #found, 2 do due[#due + 1] = { n = found[i], at = found[i + 1] } end
  table.sort(due, function(a, b)
    if a.at ~= b.at then return tonumber(a.at) < tonumber(b.at) end
    return tonumber(a.n) < tonumber(b.n)
  end)
  for _, timer in ipairs(due) do
    redis.call("ZREM", timers, timer.n)
    redis.call("RPUSH", journal, '{"type":"fired","n":' .. timer.n .. ',"atMs":' .. now .. ',"dueMs":' .. timer.at .. '}')
  end
end
`;

/**
 * Appends to a journal and wakes the run if it is parked. Due timers come before the entry, whether or not a worker was up.
 * `keys`: hash, journal, timers, then those of promote. `args`: those of promote.
 */
const APPEND = `${FIRE}
local function wake(keys, args)
  if redis.call("HDEL", keys[1], "parked") == 1 then promote(slice(keys, 4, ${PROMOTE_KEYS}), args) end
end
local function append(keys, args, entry, now)
  fire(keys[2], keys[3], now)
  redis.call("RPUSH", keys[2], entry)
  wake(keys, args)
end
`;

/** Tells the parent workflow of a run once, unless the parent has settled. */
const TELL_PARENT = `
local function tellParent(keys, args, n, entry, now)
  if redis.call("HEXISTS", keys[1], "startedAt") == 1 and redis.call("HDEL", keys[1], "child:" .. n) == 1 then
    append(keys, args, entry, now)
  end
end
`;

export interface ScriptSource {
  readonly lua: string;
  readonly numberOfKeys: number;
}

/**
 * Keys: job, then a workflow's. Args: entry, dedupe id, whether it is surely a workflow, now, whether the sender waits while a run is
 * about to end, promote's (2).
 */
const signal = `
if not isJob(KEYS[1]) then return "unknown" end
if redis.call("HEXISTS", KEYS[1], "finishedOn") == 1 or redis.call("HEXISTS", KEYS[2], "ending") == 1 then return "settled" end
if ARGV[3] == "0" and redis.call("HGET", KEYS[1], "${KIND_FIELD}") == "task" then return "not-a-workflow" end
if ARGV[5] == "1" and redis.call("HEXISTS", KEYS[2], "closing") == 1 then return "closing" end
if ARGV[2] ~= "" and redis.call("HSETNX", KEYS[2], "signal:" .. ARGV[2], "1") == 0 then return "accepted" end
append(slice(KEYS, 2, ${WORKFLOW_KEYS}), slice(ARGV, 6, 2), ARGV[1], ARGV[4])
return "accepted"
`;

/** Keys: a workflow's. Args: promote's (2). */
const wake = `
wake(KEYS, ARGV)
`;

/** Keys: job, workflow, journal, timers. */
const markTask = `
if not isJob(KEYS[1]) then return end
redis.call("HSET", KEYS[1], "${KIND_FIELD}", "task")
redis.call("DEL", KEYS[2], KEYS[3], KEYS[4])
`;

/**
 * Keys: job, lock, a workflow's, moveToFinished's, the parent's as a workflow.
 * Args: job id, token, lock ms, entry for a workflow that has started, channel, run id, now, promote's (2), moveToFinished's (9),
 * number of the parent's command or "", entry for the parent, parent's promote (2).
 */
const cancel = `
if not isJob(KEYS[1]) then return "unknown" end
if redis.call("HEXISTS", KEYS[1], "finishedOn") == 1 then return "settled" end
local own = slice(KEYS, 3, ${WORKFLOW_KEYS})
if redis.call("HEXISTS", own[1], "startedAt") == 1 then
  if redis.call("HSETNX", own[1], "cancelled", "1") == 1 then
    redis.call("HDEL", own[1], "parked")
    append(own, slice(ARGV, 8, 2), ARGV[4], ARGV[7])
    promote(slice(own, 4, ${PROMOTE_KEYS}), slice(ARGV, 8, 2))
  end
  return "requested"
end
local finishKeys = slice(KEYS, ${3 + WORKFLOW_KEYS}, ${FINISH_KEYS})
local id = ARGV[1]
local waits = redis.call("ZREM", finishKeys[7], id) + redis.call("ZREM", finishKeys[3], id) + redis.call("LREM", finishKeys[1], 1, id)
if waits > 0 then redis.call("LPUSH", finishKeys[2], id) end
redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[3])
local result = moveToFinished(finishKeys, slice(ARGV, 10, 9))
if type(result) == "number" and result < 0 then return result end
redis.call("DEL", own[1], own[2], own[3])
if ARGV[19] ~= "" then
  tellParent(slice(KEYS, ${3 + WORKFLOW_KEYS + FINISH_KEYS}, ${WORKFLOW_KEYS}), slice(ARGV, 21, 2), ARGV[19], ARGV[20], ARGV[7])
end
if waits == 0 then redis.call("PUBLISH", ARGV[5], ARGV[6]) end
return "requested"
`;

/** Keys: lock, updateProgress's (3). Args: token, id, value. */
const progress = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
return updateProgress(slice(KEYS, 2, 3), slice(ARGV, 2, 2))
`;

/**
 * Keys: lock, moveToFinished's, the parent's as a workflow, then the run's own workflow, journal and timers.
 * Args: token, moveToFinished's (9), number of the parent's command or "", entry for it, parent's promote (2), now,
 * "task", "workflow" or "force", ending, the number of journal entries that are known or "".
 */
const finish = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "lost" end
local own = slice(KEYS, ${2 + FINISH_KEYS + WORKFLOW_KEYS}, 3)
if ARGV[16] == "workflow" then
  if ARGV[18] ~= "" and redis.call("HEXISTS", own[1], "ending") == 0 then
    for _, entry in ipairs(redis.call("LRANGE", own[2], ARGV[18], -1)) do
      if string.sub(entry, 1, ${SIGNAL_BEGINS.length}) == '${SIGNAL_BEGINS}' then
        redis.call("HSET", own[1], "closing", "1")
        return { "more" }
      end
    end
  end
  local children = {}
  local fields = redis.call("HGETALL", own[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 6) == "child:" then table.insert(children, fields[i + 1]) end
  end
  if #children > 0 then
    redis.call("HSET", own[1], "ending", ARGV[17])
    return { "children", children }
  end
end
if ARGV[16] ~= "task" then redis.call("DEL", own[1], own[2], own[3]) end
if ARGV[11] ~= "" then
  tellParent(slice(KEYS, ${2 + FINISH_KEYS}, ${WORKFLOW_KEYS}), slice(ARGV, 13, 2), ARGV[11], ARGV[12], ARGV[15])
end
return { "finished", moveToFinished(slice(KEYS, 2, ${FINISH_KEYS}), slice(ARGV, 2, 9)) }
`;

/** Keys: lock, workflow, journal, timers. Args: token, now, first entry wanted, version or "". */
const load = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "lost" end
redis.call("HSETNX", KEYS[2], "startedAt", ARGV[2])
if ARGV[4] ~= "" then redis.call("HSETNX", KEYS[2], "version", ARGV[4]) end
redis.call("HDEL", KEYS[2], "parked")
fire(KEYS[3], KEYS[4], ARGV[2])
return {
  redis.call("LRANGE", KEYS[3], ARGV[3], -1),
  redis.call("HMGET", KEYS[2], "seen", "commands", "retries", "startedAt", "version", "outbox", "ending")
}
`;

/** Keys: lock, workflow, journal. Args: token, the entries after those that a tick has acted on, in their new order. */
const reorder = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "lost" end
local acted = tonumber(redis.call("HGET", KEYS[2], "seen") or "0")
for i = 2, #ARGV do redis.call("LSET", KEYS[3], acted + i - 2, ARGV[i]) end
return "done"
`;

/**
 * Keys: lock, workflow, journal, timers, moveToDelayed's. Args: token, the tick's record as JSON or "", whether to park,
 * the length of the journal that the tick knows, moveToDelayed's (9).
 */
const commit = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "lost" end
if ARGV[2] ~= "" then
  local tick = cjson.decode(ARGV[2])
  for _, entry in ipairs(tick.entries) do redis.call("RPUSH", KEYS[3], entry) end
  for _, timer in ipairs(tick.timers) do redis.call("ZADD", KEYS[4], timer[2], timer[1]) end
  for _, n in ipairs(tick.cancelledTimers) do redis.call("ZREM", KEYS[4], n) end
  for _, child in ipairs(tick.children) do redis.call("HSET", KEYS[2], "child:" .. child[1], child[2]) end
  redis.call("HSET", KEYS[2], "seen", tick.seen, "commands", tick.commands, "stalls", tick.stalls)
  redis.call("HDEL", KEYS[2], "retries", "error", "closing")
  if tick.outbox then redis.call("HSET", KEYS[2], "outbox", tick.outbox) end
end
if ARGV[3] == "0" then return "done" end
redis.call("HDEL", KEYS[2], "outbox")
if redis.call("LLEN", KEYS[3]) > tonumber(ARGV[4]) then return "more" end
local next = redis.call("ZRANGE", KEYS[4], 0, 0, "WITHSCORES")
local args = slice(ARGV, 5, 9)
args[2] = "${MAX_DUE_MS}"
if next[2] and tonumber(next[2]) < ${MAX_DUE_MS} then args[2] = next[2] end
redis.call("HSET", KEYS[2], "parked", "1")
local result = moveToDelayed(slice(KEYS, 5, ${DELAY_KEYS}), args)
if type(result) == "number" and result < 0 then
  redis.call("HDEL", KEYS[2], "parked")
  return "lost"
end
return "done"
`;

/** Keys: lock, workflow, moveToDelayed's. Args: token, error or "", stalls, moveToDelayed's (9). */
const postpone = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "lost" end
redis.call("HDEL", KEYS[2], "closing")
if ARGV[2] ~= "" then
  redis.call("HINCRBY", KEYS[2], "retries", 1)
  redis.call("HSET", KEYS[2], "error", ARGV[2], "stalls", ARGV[3])
end
local result = moveToDelayed(slice(KEYS, 3, ${DELAY_KEYS}), slice(ARGV, 4, 9))
if type(result) == "number" and result < 0 then return "lost" end
return "done"
`;

/**
 * Keys: job, workflow, completed, failed, delayed, prioritized, active. Args: job id, whether only a finished job is wanted.
 * Returns nil when there is no job, and 1 for an unfinished job if only a finished one is wanted.
 */
const get = `
if not isJob(KEYS[1]) then return nil end
if ARGV[2] == "1" and redis.call("HEXISTS", KEYS[1], "finishedOn") == 0 then return 1 end
local id = ARGV[1]
local state = "waiting"
local due = false
if redis.call("ZSCORE", KEYS[3], id) then state = "completed"
elseif redis.call("ZSCORE", KEYS[4], id) then state = "failed"
else
  due = redis.call("ZSCORE", KEYS[5], id)
  if due then state = "delayed"
  elseif not redis.call("ZSCORE", KEYS[6], id) and redis.call("LPOS", KEYS[7], id) then state = "active" end
end
return { redis.call("HGETALL", KEYS[1]), state, due, redis.call("HMGET", KEYS[2], "startedAt", "error", "stalls") }
`;

/** All scripts, in the form that `defineCommand` of ioredis takes. */
export const SCRIPTS = {
  tbSignal: { lua: native("promote") + SLICE + IS_JOB + APPEND + signal, numberOfKeys: 1 + WORKFLOW_KEYS },
  tbWake: { lua: native("promote") + SLICE + APPEND + wake, numberOfKeys: WORKFLOW_KEYS },
  tbMarkTask: { lua: IS_JOB + markTask, numberOfKeys: 4 },
  tbCancel: {
    lua: native("promote") + native("moveToFinished") + SLICE + IS_JOB + APPEND + TELL_PARENT + cancel,
    numberOfKeys: 2 + WORKFLOW_KEYS + FINISH_KEYS + WORKFLOW_KEYS,
  },
  tbProgress: { lua: native("updateProgress") + SLICE + progress, numberOfKeys: 4 },
  tbFinish: {
    lua: native("promote") + native("moveToFinished") + SLICE + APPEND + TELL_PARENT + finish,
    numberOfKeys: 1 + FINISH_KEYS + WORKFLOW_KEYS + 3,
  },
  tbLoad: { lua: FIRE + load, numberOfKeys: 4 },
  tbReorder: { lua: reorder, numberOfKeys: 3 },
  tbCommit: { lua: native("moveToDelayed") + SLICE + commit, numberOfKeys: 4 + DELAY_KEYS },
  tbPostpone: { lua: native("moveToDelayed") + SLICE + postpone, numberOfKeys: 2 + DELAY_KEYS },
  tbGet: { lua: IS_JOB + get, numberOfKeys: 7 },
} as const satisfies Record<string, ScriptSource>;

export type ScriptName = keyof typeof SCRIPTS;
