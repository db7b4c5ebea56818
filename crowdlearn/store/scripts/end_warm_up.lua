#!lua flags=allow-oom
-- Gives the right to warm a run up back, and the turn to begin with it.
-- KEYS: warmup   ARGV: replica   Returns 1 if the replica had either.
if redis.call('HGET', KEYS[1], 'pusher') == ARGV[1] then
  -- Its begin was forgotten when it pushed.
  return redis.call('HDEL', KEYS[1], 'pusher')
end
if redis.call('HGET', KEYS[1], 'begins:' .. ARGV[1]) == '1' then
  -- It stays known: whoever gives its turn back has no second one before the others.
  redis.call('HSET', KEYS[1], 'begins:' .. ARGV[1], '0')
  return 1
end
return 0
