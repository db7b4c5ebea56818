#!lua flags=allow-oom
-- A socket lets go of leases: they expire after a while, or its replica holds them no more, or both.
-- KEYS: leases, held   ARGV: socket, while (ms; '' to leave it), whether the replica keeps them (1 or 0), ordinals
-- Returns how many; none if the replica is on another socket, whose they are now.
if redis.call('HGET', KEYS[2], 'by') ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for i = 4, #ARGV do
  if ARGV[2] ~= '' then
    redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', now + tonumber(ARGV[2])), ARGV[i])
  end
  if ARGV[3] == '0' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
-- Whose it is and how many answers there were: of no use where nothing is held. When it is its turn is.
if ARGV[3] == '0' and redis.call('HLEN', KEYS[2]) <= 2 and not redis.call('HGET', KEYS[2], 'turn') then
  redis.call('DEL', KEYS[2])
end
return #ARGV - 3
