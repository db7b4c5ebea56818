#!lua flags=allow-oom
-- Leases chunks: expired leases first, then ordinals never leased.
-- KEYS: work, leases, warmup, state   ARGV: count, total, lease (ms), replica ('' unless the run is warmed up), right (ms)
-- Returns the ordinals after a first number: ms until the next lease expires, -1 when none is outstanding, or -2 when
-- another replica warms the run up.
-- Redis's clock and not the callers': gateways need not agree on the time.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local left = redis.call('PTTL', KEYS[4])
if left == -2 then
  return {-1}
end
local owner = ARGV[4] ~= '' and redis.call('GET', KEYS[3])
if owner and owner ~= ARGV[4] and owner ~= ARGV[4] .. ' pushes' then
  return {-2}
end
local count, total = tonumber(ARGV[1]), tonumber(ARGV[2])
local ordinals = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, count)
local following = tonumber(redis.call('HGET', KEYS[1], 'next') or '0')
local fresh = math.min(count - #ordinals, total - following)
for i = 1, fresh do
  ordinals[#ordinals + 1] = string.format('%.0f', following + i - 1)
end
if ARGV[4] ~= '' and not owner then
  redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
end
local expiry = string.format('%.0f', now + tonumber(ARGV[3]))
for _, ordinal in ipairs(ordinals) do
  redis.call('ZADD', KEYS[2], expiry, ordinal)
end
-- After the leases: ordinals that are passed over would never be trained, and those outstanding are leased again.
if fresh > 0 then
  redis.call('HSET', KEYS[1], 'next', string.format('%.0f', following + fresh))
end
-- A run that was replaced goes with its state, whatever is written late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
  redis.call('PEXPIRE', KEYS[2], left)
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local answer = {-1}
if #first > 0 then
  answer[1] = math.max(0, tonumber(first[2]) - now)
end
for _, ordinal in ipairs(ordinals) do
  answer[#answer + 1] = tonumber(ordinal)
end
return answer
