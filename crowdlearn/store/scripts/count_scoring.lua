#!lua flags=allow-oom
-- Counts one scoring of a run and keeps its parameters if they are the best so far, both or nothing.
-- KEYS: state, scorings, best, candidate
-- ARGV: how often the run was resumed, versions, headline ('' for none), 1 if higher is better or -1, its value ('' unless
--       finite), all finite values, 1 if the target is met or 0, epochs trained, least improvement, the parameters (only
--       where a plain SET of the candidate was refused for lack of memory)
-- Returns 'gone', 'outdated' or 'expired'; or 'counted', scorings, those since the last improvement, and the epoch of that.
local state = redis.call('HMGET', KEYS[1], 'state', 'resumed')
if not state[1] or (state[2] or '0') ~= ARGV[1] then
  redis.call('DEL', KEYS[4])
  return {state[1] and 'outdated' or 'gone'}
end
local held = redis.call('HMGET', KEYS[2], 'resumed', 'last', 'values', 'reference')
local sign, value = tonumber(ARGV[4]), tonumber(ARGV[5])
local kept = held[3] and tonumber(string.match(held[3], '"' .. ARGV[3] .. '":([-+.%w]+)') or '')
local best = value and (not kept or sign * value > sign * kept)
if best then
  if ARGV[10] then
    redis.call('SET', KEYS[4], ARGV[10])
  end
  if redis.call('EXISTS', KEYS[4]) == 0 then
    return {'expired'}
  end
end
-- A resumed run is judged anew: by what it comes to from now on, and by a target that may be another.
if held[1] ~= ARGV[1] then
  redis.call('HSET', KEYS[2], 'resumed', ARGV[1], 'met', 0, 'since', 0)
  redis.call('HDEL', KEYS[2], 'reference', 'epoch')
  held[2], held[4] = false, false
end
-- Another evaluator, or the one before this one, may have counted these very parameters.
if held[2] ~= ARGV[2] then
  redis.call('HSET', KEYS[2], 'last', ARGV[2])
  redis.call('HINCRBY', KEYS[2], 'scorings', 1)
  redis.call('HINCRBY', KEYS[2], 'met', ARGV[7])
  local reference = held[4] and tonumber(held[4])
  local gained = value and reference and sign * (value - reference)
  if value and (not reference or (gained > 0 and gained >= tonumber(ARGV[9]))) then
    redis.call('HSET', KEYS[2], 'reference', ARGV[5], 'epoch', ARGV[8], 'since', 0)
  else
    redis.call('HINCRBY', KEYS[2], 'since', 1)
    redis.call('HSETNX', KEYS[2], 'epoch', ARGV[8])
  end
end
if best then
  redis.call('PERSIST', KEYS[4])
  redis.call('RENAME', KEYS[4], KEYS[3])
  redis.call('HSET', KEYS[2], 'versions', ARGV[2], 'values', ARGV[6])
else
  redis.call('DEL', KEYS[4])
end
-- A run that was replaced goes with its state, even if it is scored once more.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  redis.call('PEXPIRE', KEYS[2], left)
  redis.call('PEXPIRE', KEYS[3], left)
end
local standing = redis.call('HMGET', KEYS[2], 'scorings', 'since', 'epoch')
return {'counted', standing[1], standing[2], standing[3]}
