#!lua flags=allow-oom
-- Makes what became of some items of a partition visible, or nothing of it.
-- KEYS: item-state, items, pool, held-out, answered, failed, raw, then one list of own rows each
-- ARGV: expected fence, expected version, offset, MINID to trim to, how long raw items stay (ms), answers, index of
--       the last failed item, TTL of own rows (ms), index of the first own row, announcement, and five lists, each after its length:
--       fields of item-state and values, slots of pool and rows, slots of held-out and rows, failed items, own rows each
--       after the number of its list. Answers are REPLICA=ANSWERED in lines, nothing after = for each to forget.
-- Returns 'outdated'; or 'committed', and why it could not be announced if it could not.
local held = redis.call('HMGET', KEYS[1], 'fence', 'version', 'offset', 'unwritten')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return {'outdated', held[1] or 'none', held[2] or 'none'}
end
local lists, at = {}, 11
for i = 1, 5 do
  lists[i] = {at + 1, at + tonumber(ARGV[at])}
  at = lists[i][2] + 1
end
local function put(key, list)
  for i = lists[list][1], lists[list][2], 2 do
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
local function write(answers)
  for replica, value in string.gmatch(answers, '([^=\n]+)=([^\n]*)') do
    if value ~= '' then
      redis.call('HSET', KEYS[5], replica, value)
    else
      redis.call('HDEL', KEYS[5], replica)
    end
  end
end
-- What cannot be written, because its key is of another type, is refused while nothing is.
for i = 3, 5 do
  redis.call('HGET', KEYS[i], '')
end
redis.call('XLEN', KEYS[2])
redis.call('LLEN', KEYS[6])
for i = 8, #KEYS do
  redis.call('LLEN', KEYS[i])
end
-- What a commit before this one made visible, and could not write.
write(held[4] or '')
-- Said again, the same rows come to the same slots.
put(KEYS[3], 2)
put(KEYS[4], 3)
if ARGV[5] ~= '0' then
  local newest = redis.call('XREVRANGE', KEYS[7], '+', '-', 'COUNT', 1)
  local from = newest[1] and newest[1][1] or held[3]
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. from, ARGV[3])) do
    redis.call('XADD', KEYS[7], entry[1], unpack(entry[2]))
  end
end
-- One command makes offset, counts and answers visible: who loads the partition reads what is unwritten as written.
local fields = {}
for i = lists[1][1], lists[1][2] do
  fields[#fields + 1] = ARGV[i]
end
redis.call('HSET', KEYS[1], 'offset', ARGV[3], 'unwritten', ARGV[6], unpack(fields))
write(ARGV[6])
redis.call('HDEL', KEYS[1], 'unwritten')
for i = lists[4][1], lists[4][2] do
  redis.call('LPUSH', KEYS[6], ARGV[i])
end
redis.call('LTRIM', KEYS[6], 0, ARGV[7])
for i = lists[5][1], lists[5][2], 2 do
  redis.call('RPUSH', KEYS[7 + ARGV[i]], ARGV[i + 1])
end
for i = 8, #KEYS do
  redis.call('LTRIM', KEYS[i], ARGV[9], -1)
  redis.call('PEXPIRE', KEYS[i], ARGV[8])
end
-- A run that was replaced goes with its state, even if it is committed to once more.
local left = redis.call('PTTL', KEYS[1])
if ARGV[5] ~= '0' then
  local time, stay = redis.call('TIME'), tonumber(ARGV[5])
  redis.call('XTRIM', KEYS[7], 'MINID', '=', string.format('%.0f', math.max(0, time[1] * 1000 - stay)))
  redis.call('PEXPIRE', KEYS[7], left > 0 and math.min(left, stay) or stay)
end
if left > 0 then
  for i = 2, 6 do
    redis.call('PEXPIRE', KEYS[i], left)
  end
end
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[4])
local announced = ARGV[10] ~= '' and redis.pcall('PUBLISH', 'crowdlearn:items', ARGV[10])
return {'committed', type(announced) == 'table' and announced.err or nil}
