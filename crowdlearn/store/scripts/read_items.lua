#!lua flags=no-writes,allow-oom
-- Reads how far a partition's items are processed, and what was answered of each replica, both of one moment.
-- KEYS: item-state, answered   Returns both, each field before its value.
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
