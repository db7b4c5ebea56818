#!lua flags=allow-oom
-- Lets an ended run go on, once: its state and its spec change together.
-- KEYS: state, spec   ARGV: how often it was resumed before, and now, spec, channel, announcement
-- Returns 1 if it had ended and nobody else resumed it meanwhile; and why that could not be announced.
local held = redis.call('HMGET', KEYS[1], 'state', 'resumed')
if held[1] ~= 'finished' or (held[2] or '0') ~= ARGV[1] then
  return {0}
end
-- Changes nothing, and is refused where a change of the state would be: a spec without its state could not be resumed.
redis.call('HSET', KEYS[1], 'state', 'finished')
redis.call('HDEL', KEYS[1], '')
redis.call('SET', KEYS[2], ARGV[3], 'KEEPTTL')
-- At once: whoever reads why a run ended must not take one that goes on for ended.
redis.call('HSET', KEYS[1], 'state', 'running', 'resumed', ARGV[2], 'reason', '', 'finished_seconds', '')
redis.call('HDEL', KEYS[1], 'reason', 'finished_seconds')
local announced = redis.pcall('PUBLISH', ARGV[4], ARGV[5])
return {1, type(announced) == 'table' and announced.err or nil}
