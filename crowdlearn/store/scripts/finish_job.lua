#!lua flags=allow-oom
-- Ends a job once.
-- KEYS: state   ARGV: reason, unix seconds, channel, announcement, how often it was resumed ('' for whatever)
-- Returns 1 if it was running, and was not resumed since whoever ends it looked; and why the end could not be announced.
local held = redis.call('HMGET', KEYS[1], 'state', 'resumed')
if held[1] ~= 'running' or (ARGV[5] ~= '' and (held[2] or '0') ~= ARGV[5]) then
  return {0}
end
redis.call('HSET', KEYS[1], 'state', 'finished', 'reason', ARGV[1], 'finished_seconds', ARGV[2])
local announced = redis.pcall('PUBLISH', ARGV[3], ARGV[4])
return {1, type(announced) == 'table' and announced.err or nil}
