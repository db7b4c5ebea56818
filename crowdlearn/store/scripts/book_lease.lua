#!lua flags=allow-oom
-- A shard has applied all rows of a lease; when all shards have, the lease is trained, and counted once.
-- KEYS: work, leases, booked, grants, state   ARGV: ordinal, shard, shards, rows
-- Returns 1 if it is trained, also if it was before; 0 if other shards still lack rows.
local held = redis.call('HMGET', KEYS[1], 'done', 'rows', 'counted')
local function remove(ordinal)
  redis.call('ZREM', KEYS[2], ordinal)
  redis.call('HDEL', KEYS[3], ordinal)
  redis.call('ZREM', KEYS[4], ordinal)
  redis.call('HDEL', KEYS[1], 'counted')
end
-- What was counted before an error, and could not be removed.
if held[3] then
  remove(held[3])
end
-- Adds nothing, and says whether it is there.
if not redis.call('ZADD', KEYS[2], 'XX', 'INCR', 0, ARGV[1]) then
  return 1
end
local booked = redis.call('HGET', KEYS[3], ARGV[1]) or ' '
if not string.find(booked, ' ' .. ARGV[2] .. ' ', 1, true) then
  booked = booked .. ARGV[2] .. ' '
end
local _, shards = string.gsub(booked, '%d+', '')
if shards < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[3], ARGV[1], booked)
  -- A run that was replaced goes with its state, whatever is written late.
  local left = redis.call('PTTL', KEYS[5])
  if left > 0 then
    redis.call('PEXPIRE', KEYS[3], left)
  end
  return 0
end
-- Removes nothing, and is refused where the removal below would be: rows that are counted are not leased again.
redis.call('ZREM', KEYS[2], '')
local done, rows = tonumber(held[1] or '0') + 1, tonumber(held[2] or '0') + tonumber(ARGV[4])
-- One command counts it, and says that it is not removed yet.
redis.call('HSET', KEYS[1], 'done', string.format('%.0f', done), 'rows', string.format('%.0f', rows), 'counted', ARGV[1])
remove(ARGV[1])
return 1
