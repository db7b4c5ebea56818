#!lua flags=no-writes,allow-oom
-- Reads the best scoring of a run and its parameters, both of one moment.
-- KEYS: scorings, best   ARGV: fields of the scorings   Returns their values, and the parameters.
return {redis.call('HMGET', KEYS[1], unpack(ARGV)), redis.call('GET', KEYS[2])}
