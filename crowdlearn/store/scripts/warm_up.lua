#!lua flags=allow-oom
-- Takes or extends the right to warm a run up, for a replica that has a gradient.
-- KEYS: warmup   ARGV: replica, right (ms), progress: how many versions the run has had, how long it is remembered (ms)
-- Returns 1 if the replica has the right now.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local right, progress = tonumber(ARGV[2]), tonumber(ARGV[3])
local had = redis.call('HMGET', KEYS[1], 'pusher', 'until', 'progress')
local pusher, ends = had[1], tonumber(had[2] or '0')
local moves = progress > tonumber(had[3] or '-1')
if pusher and pusher ~= ARGV[1] and now < ends then
  return 0
end
if pusher == ARGV[1] and not moves then
  -- Nothing of it was applied since: it keeps the right for as long as that lasts, and comes after everybody else then.
  if now < ends then
    return 1
  elseif now < ends + 2 * right then
    return 0
  end
end
-- Who has leases and pushed nothing yet gives way: where every device is slower than a turn lasts, one still gets on.
redis.call('HSET', KEYS[1], 'pusher', ARGV[1], 'until', string.format('%.0f', now + right), 'progress', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field == 'since' or string.find(field, 'begins:', 1, true) == 1 then
    redis.call('HDEL', KEYS[1], field)
  end
end
return 1
