#!lua flags=allow-oom
-- Counts minibatches that are in no gradient, because they gave no finite numbers.
-- KEYS: work, state   ARGV: minibatches   Returns how many there are now; 0 if the run is gone.
local left = redis.call('PTTL', KEYS[2])
if left == -2 then
  return 0
end
local dropped = redis.call('HINCRBY', KEYS[1], 'dropped', ARGV[1])
-- A run that was replaced goes with its state, whatever is written late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return dropped
