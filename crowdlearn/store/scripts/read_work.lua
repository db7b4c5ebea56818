#!lua flags=no-writes,allow-oom
-- Reads how far a run's leases are, and which are outstanding, both of one moment.
-- KEYS: work, leases   Returns the values of next, done and rows, and the outstanding ordinals.
return {redis.call('HMGET', KEYS[1], 'next', 'done', 'rows'), redis.call('ZRANGE', KEYS[2], 0, -1)}
