#!lua flags=allow-oom
-- Begins a stream, empty, which goes with its shard's manifest: that of a run that was replaced has a time to live.
-- KEYS: stream, manifest   ARGV: how long a stream lives whose manifest is gone (ms)
local left = redis.call('PTTL', KEYS[2])
local function let_go()
  if left ~= -1 then
    redis.call('PEXPIRE', KEYS[1], left > 0 and left or ARGV[1])
  end
end
-- Refused here, if it is, while nothing is there yet; and a stream that was begun by halves gets it.
let_go()
if redis.call('EXISTS', KEYS[1]) == 0 then
  -- An entry that is trimmed at once would wake who waits for the first.
  redis.call('XGROUP', 'CREATE', KEYS[1], 'begun', '0', 'MKSTREAM')
  let_go()
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'begun')
end
