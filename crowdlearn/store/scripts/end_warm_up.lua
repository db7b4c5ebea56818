#!lua flags=allow-oom
-- Gives the right to warm a run up back.
-- KEYS: warmup   ARGV: replica   Returns 1 if the replica had it.
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] or owner == ARGV[1] .. ' pushes' then
  return redis.call('DEL', KEYS[1])
end
return 0
