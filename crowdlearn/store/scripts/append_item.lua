#!lua
-- Appends a raw item, unless too many bytes of them wait; refused while Redis has no memory: senders wait then, too.
-- KEYS: items, item-state   ARGV: bytes that may wait, replica, item number, kind, payload
-- Returns the bytes that wait now, -1 if these would be too many, or -2 if the run is gone.
local left = redis.call('PTTL', KEYS[2])
if left == -2 then
  return -2
end
-- An entry takes some 60 bytes beside its payload, and a payload may be empty.
local size = #ARGV[5] + 64
-- Each entry says how many bytes there were up to it: what waits is known in one write.
local taken = tonumber(redis.call('HGET', KEYS[2], 'taken')) or 0
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local sum = math.max(taken, last[1] and tonumber(last[1][2][2]) or 0)
if sum > taken and sum - taken + size > tonumber(ARGV[1]) then
  return -1
end
sum = sum + size
redis.call('XADD', KEYS[1], '*', 's', string.format('%.0f', sum), 'r', ARGV[2], 'n', ARGV[3], 'k', ARGV[4], 'd', ARGV[5])
-- A run that was replaced goes with its state, whatever is sent late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return sum - taken
