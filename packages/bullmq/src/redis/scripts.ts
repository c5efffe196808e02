import bullmqScripts from "bullmq/dist/cjs/scripts/index.js";
import { MAX_DUE_MS } from "../mapping.ts";

/*
 * Our Lua around BullMQ's. A script of BullMQ becomes a function of ours, so that a check, the journal and the move of
 * the job are one atomic step, and the move is exactly that of the installed BullMQ.
 *
 * Keys of a workflow run, beside BullMQ's key of the job, all gone once it has settled:
 *   KEY:tb          hash: startedAt, version, seen, commands, retries, stalls, parked, cancelled, error, outbox, ending,
 *                   child:N = run id, signal:DEDUPE_ID
 *   KEY:tb:journal  list of entries, JSON each
 *   KEY:tb:timers   sorted set of command numbers by their due time
 */

const PROMOTE_KEYS = 9;
const FINISH_KEYS = 14;
const DELAY_KEYS = 11;

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

/** Adds to a journal and wakes the run if it is parked. `keys`: hash, journal, then those of promote. */
const APPEND = `
local function append(workflow, journal, promoteKeys, promoteArgs, entry)
  redis.call("RPUSH", journal, entry)
  if redis.call("HDEL", workflow, "parked") == 1 then promote(promoteKeys, promoteArgs) end
end
`;

/** Tells the workflow that started a run, once, as long as it is not settling itself. */
const TELL_PARENT = `
local function tellParent(workflow, journal, promoteKeys, promoteArgs, n, entry)
  if redis.call("HEXISTS", workflow, "startedAt") == 1 and redis.call("HDEL", workflow, "child:" .. n) == 1 then
    append(workflow, journal, promoteKeys, promoteArgs, entry)
  end
end
`;

export interface ScriptSource {
  readonly lua: string;
  readonly numberOfKeys: number;
}

/** Keys: job, workflow, journal, promote's. Args: entry, dedupe id, whether it is surely a workflow, promote's (2). */
const signal = `
if redis.call("EXISTS", KEYS[1]) == 0 then return "unknown" end
if redis.call("HEXISTS", KEYS[1], "finishedOn") == 1 or redis.call("HEXISTS", KEYS[2], "ending") == 1 then return "settled" end
if ARGV[3] == "0" and redis.call("HEXISTS", KEYS[2], "startedAt") == 0 and tonumber(redis.call("HGET", KEYS[1], "ats") or "0") > 0 then
  return "not-a-workflow"
end
if ARGV[2] ~= "" and redis.call("HSETNX", KEYS[2], "signal:" .. ARGV[2], "1") == 0 then return "accepted" end
append(KEYS[2], KEYS[3], slice(KEYS, 4, ${PROMOTE_KEYS}), slice(ARGV, 4, 2), ARGV[1])
return "accepted"
`;

/**
 * Keys: job, workflow, journal, timers, lock, promote's, moveToFinished's, parent's workflow, journal, promote's.
 * Args: job id, token, lock ms, entry for a workflow that has begun, channel, run id, promote's (2), moveToFinished's (9),
 * number of the parent's command or "", entry for the parent, parent's promote (2).
 */
const cancel = `
if redis.call("EXISTS", KEYS[1]) == 0 then return "unknown" end
if redis.call("HEXISTS", KEYS[1], "finishedOn") == 1 then return "settled" end
if redis.call("HEXISTS", KEYS[2], "startedAt") == 1 then
  if redis.call("HSETNX", KEYS[2], "cancelled", "1") == 1 then
    redis.call("RPUSH", KEYS[3], ARGV[4])
    redis.call("HDEL", KEYS[2], "parked")
    promote(slice(KEYS, 6, ${PROMOTE_KEYS}), slice(ARGV, 7, 2))
  end
  return "requested"
end
local finishKeys = slice(KEYS, 15, ${FINISH_KEYS})
local id = ARGV[1]
local waits = redis.call("ZREM", finishKeys[7], id) + redis.call("ZREM", finishKeys[3], id) + redis.call("LREM", finishKeys[1], 1, id)
if waits > 0 then redis.call("LPUSH", finishKeys[2], id) end
redis.call("SET", KEYS[5], ARGV[2], "PX", ARGV[3])
local result = moveToFinished(finishKeys, slice(ARGV, 9, 9))
if type(result) == "number" and result < 0 then return result end
redis.call("DEL", KEYS[2], KEYS[3], KEYS[4])
if ARGV[18] ~= "" then tellParent(KEYS[29], KEYS[30], slice(KEYS, 31, ${PROMOTE_KEYS}), slice(ARGV, 20, 2), ARGV[18], ARGV[19]) end
if waits == 0 then redis.call("PUBLISH", ARGV[5], ARGV[6]) end
return "requested"
`;

/** Keys: lock, updateProgress's (3). Args: token, id, value. */
const progress = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
return updateProgress(slice(KEYS, 2, 3), slice(ARGV, 2, 2))
`;

/**
 * Keys: lock, moveToFinished's, parent's workflow, journal, promote's, then workflow, journal, timers of its own.
 * Args: token, moveToFinished's (9), number of the parent's command or "", entry for it, parent's promote (2),
 * "task", "workflow" or "force", ending.
 */
const finish = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "lost" end
if ARGV[15] ~= "task" then
  if ARGV[15] == "workflow" then
    local children = {}
    local fields = redis.call("HGETALL", KEYS[27])
    for i = 1, #fields, 2 do
      if string.sub(fields[i], 1, 6) == "child:" then table.insert(children, fields[i + 1]) end
    end
    if #children > 0 then
      redis.call("HSET", KEYS[27], "ending", ARGV[16])
      return { "children", children }
    end
  end
  redis.call("DEL", KEYS[27], KEYS[28], KEYS[29])
end
if ARGV[11] ~= "" then tellParent(KEYS[16], KEYS[17], slice(KEYS, 18, ${PROMOTE_KEYS}), slice(ARGV, 13, 2), ARGV[11], ARGV[12]) end
return { "finished", moveToFinished(slice(KEYS, 2, ${FINISH_KEYS}), slice(ARGV, 2, 9)) }
`;

/** Keys: lock, workflow, journal, timers. Args: token, now, first entry wanted, version or "". */
const load = `
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "lost" end
redis.call("HSETNX", KEYS[2], "startedAt", ARGV[2])
if ARGV[4] ~= "" then redis.call("HSETNX", KEYS[2], "version", ARGV[4]) end
redis.call("HDEL", KEYS[2], "parked")
for _, n in ipairs(redis.call("ZRANGEBYSCORE", KEYS[4], "-inf", ARGV[2])) do
  redis.call("ZREM", KEYS[4], n)
  redis.call("RPUSH", KEYS[3], '{"type":"fired","n":' .. n .. ',"atMs":' .. ARGV[2] .. '}')
end
return {
  redis.call("LRANGE", KEYS[3], ARGV[3], -1),
  redis.call("HMGET", KEYS[2], "seen", "commands", "retries", "startedAt", "version", "outbox", "ending")
}
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
  redis.call("HDEL", KEYS[2], "retries", "error")
  if tick.outbox then redis.call("HSET", KEYS[2], "outbox", tick.outbox) end
end
if ARGV[3] == "0" then return "done" end
redis.call("HDEL", KEYS[2], "outbox")
if redis.call("LLEN", KEYS[3]) > tonumber(ARGV[4]) then return "more" end
local next = redis.call("ZRANGE", KEYS[4], 0, 0, "WITHSCORES")
local args = slice(ARGV, 5, 9)
args[2] = next[2] or "${MAX_DUE_MS}"
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
if ARGV[2] ~= "" then
  redis.call("HINCRBY", KEYS[2], "retries", 1)
  redis.call("HSET", KEYS[2], "error", ARGV[2], "stalls", ARGV[3])
end
local result = moveToDelayed(slice(KEYS, 3, ${DELAY_KEYS}), slice(ARGV, 4, 9))
if type(result) == "number" and result < 0 then return "lost" end
return "done"
`;

/** Keys: job, workflow, completed, failed, delayed, prioritized, active. Args: job id. */
const get = `
local job = redis.call("HGETALL", KEYS[1])
if #job == 0 then return nil end
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
return { job, state, due, redis.call("HMGET", KEYS[2], "startedAt", "error", "stalls") }
`;

/** Every script, as `defineCommand` of ioredis takes it. */
export const SCRIPTS = {
  tbSignal: { lua: native("promote") + SLICE + APPEND + signal, numberOfKeys: 3 + PROMOTE_KEYS },
  tbCancel: {
    lua: native("promote") + native("moveToFinished") + SLICE + APPEND + TELL_PARENT + cancel,
    numberOfKeys: 5 + PROMOTE_KEYS + FINISH_KEYS + 2 + PROMOTE_KEYS,
  },
  tbProgress: { lua: native("updateProgress") + SLICE + progress, numberOfKeys: 4 },
  tbFinish: {
    lua: native("promote") + native("moveToFinished") + SLICE + APPEND + TELL_PARENT + finish,
    numberOfKeys: 1 + FINISH_KEYS + 2 + PROMOTE_KEYS + 3,
  },
  tbLoad: { lua: load, numberOfKeys: 4 },
  tbCommit: { lua: native("moveToDelayed") + SLICE + commit, numberOfKeys: 4 + DELAY_KEYS },
  tbPostpone: { lua: native("moveToDelayed") + SLICE + postpone, numberOfKeys: 2 + DELAY_KEYS },
  tbGet: { lua: get, numberOfKeys: 7 },
} as const satisfies Record<string, ScriptSource>;

export type ScriptName = keyof typeof SCRIPTS;
