#!lua flags=no-writes,allow-oom
-- Reads who has said that it lives, and the time.
-- KEYS: members   Returns Unix milliseconds, then each member before the time at which it was heard of.
local time = redis.call('TIME')
return {tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
