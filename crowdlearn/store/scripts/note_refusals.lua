#!lua flags=allow-oom
-- Counts gradients that were refused since a version of the first shard; those of another version are forgotten.
-- KEYS: refusals, state   ARGV: version, Unix seconds, and then reason, gradients for each reason
local left = redis.call('PTTL', KEYS[2])
if left == -2 then
  return 0
end
local known, fields = redis.call('HGET', KEYS[1], 'version') == ARGV[1], {'version', ARGV[1]}
if not known then
  redis.call('DEL', KEYS[1])
  fields = {'version', ARGV[1], 'since', ARGV[2]}
end
for i = 3, #ARGV, 2 do
  local count = known and redis.call('HGET', KEYS[1], ARGV[i]) or 0
  fields[#fields + 1] = ARGV[i]
  fields[#fields + 1] = string.format('%.0f', count + ARGV[i + 1])
end
-- All reasons at once.
redis.call('HSET', KEYS[1], unpack(fields))
-- A run that was replaced goes with its state, whatever is written late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return 1
