#!lua flags=no-writes,allow-oom
-- Reads a shard's manifest and what it applied of each replica, both of one moment.
-- KEYS: manifest, applied   ARGV: fields of the manifest   Returns their values, and replicas each before its value.
return {redis.call('HMGET', KEYS[1], unpack(ARGV)), redis.call('HGETALL', KEYS[2])}
