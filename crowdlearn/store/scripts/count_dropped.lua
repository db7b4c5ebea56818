#!lua flags=allow-oom
-- Counts minibatches that are in no gradient, because they gave no finite numbers.
-- KEYS: work   ARGV: minibatches   Returns how many there are now; 0 of a run that is gone or was never leased, whose key would stay for ever.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
return redis.call('HINCRBY', KEYS[1], 'dropped', ARGV[1])
