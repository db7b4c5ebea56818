#!lua flags=allow-oom
-- Takes a shard that nobody else holds, and outdates whoever held it before.
-- KEYS: lease, manifest   ARGV: member, lease (ms)   Returns the fence, or nil.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return nil
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  return nil
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('HINCRBY', KEYS[2], 'fence', 1)
