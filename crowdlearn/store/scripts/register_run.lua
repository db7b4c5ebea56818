#!lua flags=allow-oom
-- Makes RUN the newest of a job, if no other submission came between.
-- KEYS: jobs   ARGV: name, the run that was newest ('' for none), run   Returns 1 if it did.
local newest = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if newest ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
