#!lua flags=allow-oom
-- Counts a lease's rows once, however often it was leased.
-- KEYS: work, leases   ARGV: ordinal, rows   Returns 1 if it was outstanding.
-- Adds nothing, and says whether it is there.
if not redis.call('ZADD', KEYS[2], 'XX', 'INCR', 0, ARGV[1]) then
  return 0
end
local held = redis.call('HMGET', KEYS[1], 'done', 'rows')
-- Removes nothing, and is refused where the removal below would be: rows that are counted are not leased again.
redis.call('ZREM', KEYS[2], '')
local done, rows = tonumber(held[1] or '0') + 1, tonumber(held[2] or '0') + tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'done', string.format('%.0f', done), 'rows', string.format('%.0f', rows))
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
