#!lua flags=allow-oom
-- Makes one commit of a shard visible, or nothing of it.
-- KEYS: manifest, applied, stream, new parameters, new slots, old parameters, old slots
-- ARGV: expected fence, expected version, version, offset, blob, forgotten, MINID to trim to, TTL of the old blobs (ms),
--       PUBLISH or SPUBLISH, channel, announcement, n, n pairs of replica and sequence:milliseconds, then replicas to forget
local held = redis.call('HMGET', KEYS[1], 'fence', 'version')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return {'outdated', held[1] or 'none', held[2] or 'none'}
end
-- A commit slower than the blobs' TTL must not point the manifest at nothing.
if redis.call('EXISTS', KEYS[4], KEYS[5]) ~= 2 then
  return {'expired'}
end
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'offset', ARGV[4], 'blob', ARGV[5], 'forgotten', ARGV[6])
-- The same names mean the same version: every gradient was dropped, and only the offset moves.
if KEYS[4] ~= KEYS[6] then
  redis.call('PERSIST', KEYS[4])
  redis.call('PERSIST', KEYS[5])
  -- The old blobs live on for a moment: a reader may have seen the old manifest just now.
  redis.call('PEXPIRE', KEYS[6], ARGV[8])
  redis.call('PEXPIRE', KEYS[7], ARGV[8])
  redis.call(ARGV[9], ARGV[10], ARGV[11])
end
local last = 12 + 2 * tonumber(ARGV[12])
for i = 13, last, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
for i = last + 1, #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[i])
end
-- A run that was replaced goes with its manifest, even if it is committed to once more.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  for i = 2, 5 do
    redis.call('PEXPIRE', KEYS[i], left)
  end
end
redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[7])
return {'committed'}
