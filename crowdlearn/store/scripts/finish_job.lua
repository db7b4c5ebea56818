-- Ends a job once.
-- KEYS: state   ARGV: reason, unix seconds, channel, announcement   Returns 1 if it was running.
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'finished', 'reason', ARGV[1], 'finished_seconds', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
