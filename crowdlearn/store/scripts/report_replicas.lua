#!lua flags=allow-oom
-- Notes how many replicas a gateway serves.
-- KEYS: replicas, state   ARGV: gateway, report   Returns each gateway before its report; none if the run is gone.
local left = redis.call('PTTL', KEYS[2])
if left == -2 then
  return {}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
-- A run that was replaced goes with its state, whatever is written late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return redis.call('HGETALL', KEYS[1])
