#!lua flags=allow-oom
-- Makes one commit of a shard visible, or nothing of it.
-- KEYS: manifest, applied, stream, new parameters, new slots, old parameters, old slots, ledger
-- ARGV: expected fence, expected version, version, offset, blob, forgotten, MINID to trim to, TTL of the old blobs (ms),
--       PUBLISH or SPUBLISH, channel, announcement, changes with spaces between: REPLICA=SEQUENCE:MILLISECONDS of each
--       replica that changed, REPLICA of each to forget, #GRANT=ROWS of each grant that changed, #GRANT of each to drop
-- Returns 'outdated' or 'expired'; or 'committed', the offset, and why it could not be announced if it could not.
local held = redis.call('HMGET', KEYS[1], 'fence', 'version', 'unwritten')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return {'outdated', held[1] or 'none', held[2] or 'none'}
end
-- A commit slower than the blobs' TTL must not point the manifest at nothing.
if redis.call('EXISTS', KEYS[4], KEYS[5]) ~= 2 then
  return {'expired'}
end
local function write(changes)
  for name, value in string.gmatch(changes, '([^ =]+)=?([^ ]*)') do
    local key = KEYS[2]
    if string.sub(name, 1, 1) == '#' then
      key, name = KEYS[8], string.sub(name, 2)
    end
    if value ~= '' then
      redis.call('HSET', key, name, value)
    else
      redis.call('HDEL', key, name)
    end
  end
end
-- What cannot be written, because its key is of another type, is refused while nothing is.
redis.call('HGET', KEYS[2], '')
redis.call('XLEN', KEYS[3])
redis.call('HGET', KEYS[8], '')
-- What a commit before this one made visible, and could not write.
write(held[3] or '')
-- The same names mean the same version: every gradient was dropped, and only the offset moves.
local moved = KEYS[4] ~= KEYS[6]
if moved then
  redis.call('PERSIST', KEYS[4])
  redis.call('PERSIST', KEYS[5])
end
-- One command makes version, offset, sequence numbers and the ledger visible: who loads the shard reads what is unwritten as written.
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'offset', ARGV[4], 'blob', ARGV[5], 'forgotten', ARGV[6],
           'unwritten', ARGV[12])
write(ARGV[12])
redis.call('HDEL', KEYS[1], 'unwritten')
if moved then
  -- The old blobs live on for a moment: a reader may have seen the old manifest just now.
  redis.call('PEXPIRE', KEYS[6], ARGV[8])
  redis.call('PEXPIRE', KEYS[7], ARGV[8])
end
-- A run that was replaced goes with its manifest, even if it is committed to once more.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  for i = 2, 5 do
    redis.call('PEXPIRE', KEYS[i], left)
  end
  redis.call('PEXPIRE', KEYS[8], left)
end
-- After an id of the future a stream counts on from there, and after the last possible one it takes none: with nothing
-- unread it begins anew.
local offset, newest = ARGV[4], nil
if tonumber(string.match(offset, '^%d+')) > redis.call('TIME')[1] * 1000 + 86400000 then
  newest = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
end
if newest and (not newest[1] or newest[1][1] == offset) then
  offset = '0-0'
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[1], 'offset', offset)
else
  redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[7])
end
local announced = moved and redis.pcall(ARGV[9], ARGV[10], ARGV[11])
return {'committed', offset, type(announced) == 'table' and announced.err or nil}
