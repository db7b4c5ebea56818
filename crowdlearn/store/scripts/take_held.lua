#!lua flags=allow-oom
-- A replica has come back: what it holds is its new socket's from now on, and is leased for as long as at first.
-- KEYS: leases, held   ARGV: socket, lease (ms), how long it is remembered what a replica holds (ms)
-- Returns each ordinal before ATTEMPT:ANSWER:PLACE of its grant, with :unsure behind where the replica may not know of it:
-- the last answer may have died with its socket.
local fields = redis.call('HGETALL', KEYS[2])
if #fields == 0 then
  return {}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local expiry = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[2], 'by', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local last, answer = redis.call('HGET', KEYS[2], 'answers'), {}
for i = 1, #fields, 2 do
  local ordinal, value = fields[i], fields[i + 1]
  if string.match(ordinal, '^%d+$') then
    if string.match(value, '^%d+:(%d+):%d+$') == last then
      value = value .. ':unsure'
      redis.call('HSET', KEYS[2], ordinal, value)
    end
    redis.call('ZADD', KEYS[1], 'XX', expiry, ordinal)
    answer[#answer + 1] = ordinal
    answer[#answer + 1] = value
  end
end
return answer
