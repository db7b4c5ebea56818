#!lua flags=allow-oom
-- Counts a lease's rows once, however often it was leased.
-- KEYS: work, leases   ARGV: ordinal, rows   Returns 1 if it was outstanding.
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'done', 1)
redis.call('HINCRBY', KEYS[1], 'rows', ARGV[2])
return 1
