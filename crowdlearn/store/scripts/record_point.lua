#!lua flags=allow-oom
-- Appends a point to a curve; its stream id is its index, so that readers can ask for what they have not seen.
-- KEYS: curve, state   ARGV: most points, point   Returns the index; 0 if the run is gone.
local left = redis.call('PTTL', KEYS[2])
if left == -2 then
  return 0
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local index = 1
if #last > 0 then
  index = tonumber(string.match(last[1][1], '^(%d+)')) + 1
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], string.format('%.0f-0', index), 'p', ARGV[2])
-- A run that was replaced goes with its state, whatever is written late.
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return index
