#!lua flags=allow-oom
-- Appends a point to a curve; its stream id is its index, so that readers can ask for what they have not seen.
-- KEYS: curve   ARGV: most points, point   Returns the index.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local index = 1
if #last > 0 then
  index = tonumber(string.match(last[1][1], '^(%d+)')) + 1
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], string.format('%.0f-0', index), 'p', ARGV[2])
return index
