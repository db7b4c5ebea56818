#!lua flags=allow-oom
-- Leases chunks to a replica: expired leases, then ordinals never leased; where there are none of either those that
-- somebody has had for longest, a second time; and last its own that nobody else wanted for a lease after they expired.
-- What it has held is not leased to it otherwise: one whose rows never count must not keep them from others.
-- KEYS: work, leases, warmup, state, grants, held
-- ARGV: count, total, lease (ms), replica, whether the run is warmed up (1 or 0), after how long without any gradient
--       one more may begin to warm it up (ms), how long it is remembered what a replica holds (ms), its socket, how many it may have that are not trained, its turns: how many
--       leases of the run one of its own costs (0 where it may have all), how many it may save, how many it has at once
--       if it is new, after how long without any lease each may have one all the same (ms), and how long it is
--       remembered who warms the run up (ms)
-- Returns, after a first number, each ordinal and its attempt: ms until the next lease expires, -1 when none is
-- outstanding, -2 when another replica warms the run up, or -3 when it is the turn of others.
-- Redis's clock and not the callers': gateways need not agree on the time.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local left = redis.call('PTTL', KEYS[4])
if left == -2 then
  return {-1}
end
-- One replica that pushes warms the run up. Until there is one, one begins, and another after each wait: who begins
-- may be slow, or may never push.
local begins, since = false, nil
if ARGV[5] == '1' then
  local warmup = redis.call('HMGET', KEYS[3], 'pusher', 'until', 'since', 'begins:' .. ARGV[4])
  if warmup[1] and warmup[1] ~= ARGV[4] and now < tonumber(warmup[2]) then
    return {-2}
  end
  since = tonumber(warmup[3] or '') or now
  if warmup[1] ~= ARGV[4] and warmup[4] ~= '1' then
    local others, pairs_of = 0, redis.call('HGETALL', KEYS[3])
    for i = 1, #pairs_of, 2 do
      if string.find(pairs_of[i], 'begins:', 1, true) == 1 and pairs_of[i + 1] == '1' then
        others = others + 1
      end
    end
    if others > math.floor((now - since) / tonumber(ARGV[6])) then
      return {-2}
    end
    begins = not warmup[4]
  end
end
local mine, holds = {}, 0
for _, field in ipairs(redis.call('HKEYS', KEYS[6])) do
  if redis.call('ZSCORE', KEYS[2], field) then
    mine[field], holds = true, holds + 1
  elseif string.match(field, '^%d+$') then
    redis.call('HDEL', KEYS[6], field)
  end
end
local total, lease = tonumber(ARGV[2]), tonumber(ARGV[3])
local count = math.min(tonumber(ARGV[1]), tonumber(ARGV[9]) - holds)
if count < 1 then
  return {0}
end
local work = redis.call('HMGET', KEYS[1], 'next', 'again', 'at', 'waived')
local following = tonumber(work[1] or '0')
-- A replica's turn is the generic cell rate algorithm's (ITU-T I.371) on a clock that each lease of the run moves by one:
-- so it has a part of all leases, however fast it is. What is leased a second time is for whoever comes. Where nobody
-- leased anything for long it moves by one turn: all who wait have one, or each time only one of them would.
local clock, cost, may = following + tonumber(work[2] or '0') + tonumber(work[4] or '0'), tonumber(ARGV[10]), count
local turn, waived = clock, 0
if cost > 0 then
  local horizon = clock + cost * tonumber(ARGV[11])
  local saved = tonumber(redis.call('HGET', KEYS[6], 'turn') or '')
  if saved then
    turn = math.min(math.max(saved, clock), horizon)
  else
    turn = math.max(horizon - cost * tonumber(ARGV[12]), clock)
  end
  if not saved or saved > horizon then
    -- Also where it gets nothing: its time counts from now on.
    redis.call('HSET', KEYS[6], 'turn', string.format('%.3f', turn))
    redis.call('PEXPIRE', KEYS[6], ARGV[7])
  end
  may = math.min(count, math.floor((horizon - turn) / cost + 1e-6))
  if may < 1 and now - tonumber(work[3] or '0') >= tonumber(ARGV[13]) then
    may, waived = 1, math.ceil(cost)
  end
end
local ordinals, others = {}, false
for _, ordinal in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, count + holds)) do
  if #ordinals < may and not mine[ordinal] then
    ordinals[#ordinals + 1] = ordinal
    -- A script that ended early may have leased it, and all before it, without saying so.
    following = math.max(following, tonumber(ordinal) + 1)
  elseif not mine[ordinal] then
    others = true
  end
end
local again = #ordinals
local fresh = math.max(0, math.min(may - again, total - following))
if may < 1 and (others or following < total) then
  return {-3}
end
for i = 1, fresh do
  ordinals[again + i] = string.format('%.0f', following + i - 1)
end
if #ordinals == 0 then
  local before = string.format('%.0f', now - lease)
  for _, ordinal in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', before, 'LIMIT', 0, count + holds)) do
    if not redis.call('ZSCORE', KEYS[2], ordinal) then
      redis.call('ZREM', KEYS[5], ordinal)
    elseif #ordinals < count and not mine[ordinal] then
      ordinals[#ordinals + 1] = ordinal
    end
  end
  if #ordinals == 0 then
    for _, ordinal in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', before, 'LIMIT', 0, count)) do
      ordinals[#ordinals + 1] = ordinal
    end
  end
  again = #ordinals
end
if begins and #ordinals > 0 then
  redis.call('HSET', KEYS[3], 'begins:' .. ARGV[4], '1', 'since', string.format('%.0f', since))
  redis.call('PEXPIRE', KEYS[3], ARGV[14])
end
local expiry, since = string.format('%.0f', now + lease), string.format('%.0f', now)
local attempts = {}
local answers = #ordinals > 0 and redis.call('HINCRBY', KEYS[6], 'answers', 1)
for i, ordinal in ipairs(ordinals) do
  -- A number of its own for each lease that is not the first: rows of two grants of a lease do not add up.
  attempts[i] = i <= again and redis.call('HINCRBY', KEYS[1], 'again', 1) or 0
  redis.call('ZADD', KEYS[2], expiry, ordinal)
  redis.call('ZADD', KEYS[5], since, ordinal)
  redis.call('HSET', KEYS[6], ordinal, string.format('%.0f:%.0f:%.0f', attempts[i], answers, i))
end
if #ordinals > 0 then
  redis.call('HSET', KEYS[6], 'by', ARGV[8])
  if cost > 0 then
    redis.call('HSET', KEYS[6], 'turn', string.format('%.3f', turn + cost * #ordinals))
  end
  redis.call('PEXPIRE', KEYS[6], ARGV[7])
end
-- After the leases: ordinals that are passed over would never be trained, and those outstanding are leased again.
if #ordinals > 0 then
  redis.call('HSET', KEYS[1], 'next', string.format('%.0f', following + fresh), 'at', since)
end
if #ordinals > 0 and waived > 0 then
  redis.call('HINCRBY', KEYS[1], 'waived', waived)
end
-- A run that was replaced goes with its state, whatever is written late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
  redis.call('PEXPIRE', KEYS[2], left)
  redis.call('PEXPIRE', KEYS[5], left)
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local answer = {-1}
if #first > 0 then
  answer[1] = math.max(0, tonumber(first[2]) - now)
end
for i, ordinal in ipairs(ordinals) do
  answer[#answer + 1] = tonumber(ordinal)
  answer[#answer + 1] = attempts[i]
end
return answer
