#!lua flags=no-writes,allow-oom
-- Reads a shard's manifest, what it applied of each replica and what its ledger counts, all of one moment.
-- KEYS: manifest, applied, ledger   ARGV: fields of the manifest
-- Returns their values, replicas each before its value, and grants each before its rows.
return {redis.call('HMGET', KEYS[1], unpack(ARGV)), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
