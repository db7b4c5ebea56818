#!lua flags=allow-oom
-- Takes a shard that nobody else holds, and outdates whoever held it before.
-- KEYS: lease, manifest   ARGV: member, lease (ms)   Returns the fence, or nil: the time of Redis in microseconds, for a
-- number that only counts is given again when Redis has lost a claim; or one more than the last, where its clock went back.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return nil
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  return nil
end
-- Before the lease: a fence that nobody holds costs nothing, a lease without one would keep all others out.
local time = redis.call('TIME')
local last = tonumber(redis.call('HGET', KEYS[2], 'fence')) or 0
local fence = math.max(last + 1, tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', KEYS[2], 'fence', string.format('%.0f', fence))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return fence
