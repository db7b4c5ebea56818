#!lua flags=allow-oom
-- Says that a member is alive, forgets those that are not, and returns who is.
-- KEYS: members   ARGV: timeout (ms), member ('' to look without being one)
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if ARGV[2] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - tonumber(ARGV[1])))
return redis.call('ZRANGE', KEYS[1], 0, -1)
