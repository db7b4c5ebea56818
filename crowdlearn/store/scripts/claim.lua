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
-- Before the lease: a fence that nobody holds costs nothing, a lease without one would keep all others out.
local fence = redis.call('HINCRBY', KEYS[2], 'fence', 1)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return fence
