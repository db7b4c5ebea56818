#!lua flags=allow-oom
-- Counts gradients that were refused since a version of the first shard; those of another version are forgotten.
-- KEYS: refusals, state   ARGV: version, Unix seconds, and then reason, gradients for each reason
local left = redis.call('PTTL', KEYS[2])
if left == -2 then
  return 0
end
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'since', ARGV[2])
end
for i = 3, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
-- A run that was replaced goes with its state, whatever is written late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return 1
