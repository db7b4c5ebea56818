#!lua flags=allow-oom
-- Counts gradients that were refused since a version of the first shard; those of another version are forgotten.
-- KEYS: refusals   ARGV: version, Unix seconds, and then reason, gradients for each reason
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'since', ARGV[2])
end
for i = 3, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
