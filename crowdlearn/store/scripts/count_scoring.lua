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
local function whole(number)
  return string.format('%.0f', tonumber(number))
end
local held = redis.call('HMGET', KEYS[2], 'resumed', 'last', 'values', 'reference', 'scorings', 'met', 'since', 'epoch')
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
local met, since, reference, epoch = held[6] or 0, held[7] or 0, held[4] or '', held[8] or ARGV[8]
local scorings, last = held[5] or 0, held[2]
if held[1] ~= ARGV[1] then
  met, since, reference, epoch, last = 0, 0, '', ARGV[8], false
end
-- Another evaluator, or the one before this one, may have counted these very parameters.
if last ~= ARGV[2] then
  scorings, met, since = scorings + 1, met + tonumber(ARGV[7]), since + 1
  local before = tonumber(reference)
  local gained = value and before and sign * (value - before)
  if value and (not before or (gained > 0 and gained >= tonumber(ARGV[9]))) then
    reference, epoch, since = ARGV[5], ARGV[8], 0
  end
end
-- The parameters, and then one command that makes the scoring and what they are visible.
if best then
  redis.call('PERSIST', KEYS[4])
  redis.call('RENAME', KEYS[4], KEYS[3])
end
redis.call('HSET', KEYS[2], 'resumed', ARGV[1], 'last', ARGV[2], 'scorings', whole(scorings), 'met', whole(met),
           'since', whole(since), 'reference', reference, 'epoch', epoch,
           unpack(best and {'versions', ARGV[2], 'values', ARGV[6]} or {}))
if not best then
  redis.call('DEL', KEYS[4])
end
-- A run that was replaced goes with its state, even if it is scored once more.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  redis.call('PEXPIRE', KEYS[2], left)
  redis.call('PEXPIRE', KEYS[3], left)
end
return {'counted', whole(scorings), whole(since), epoch}
