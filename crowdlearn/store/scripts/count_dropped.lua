#!lua flags=allow-oom
-- Counts minibatches that are in no gradient, because they gave no finite numbers.
-- KEYS: work   ARGV: minibatches   Returns how many there are now.
return redis.call('HINCRBY', KEYS[1], 'dropped', ARGV[1])
