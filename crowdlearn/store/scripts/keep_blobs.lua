#!lua flags=allow-oom
-- Writes a shard's next values where a plain SET was refused for lack of memory: the commit that follows frees more.
-- KEYS: parameters, slots   ARGV: TTL (ms), the values of both
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[1])
return 1
