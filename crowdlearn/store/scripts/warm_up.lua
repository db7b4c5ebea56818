#!lua flags=allow-oom
-- Takes or extends the right to warm a run up, for a replica that has a gradient.
-- KEYS: warmup   ARGV: replica, right (ms)   Returns 1 if the replica has the right now.
local owner = redis.call('GET', KEYS[1])
-- Who has leases but pushed nothing yet gives way: where every device is slower than the right lasts, one still gets on.
if owner and owner ~= ARGV[1] .. ' pushes' and string.find(owner, ' pushes', 1, true) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ' pushes', 'PX', ARGV[2])
return 1
