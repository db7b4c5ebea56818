#!lua flags=allow-oom
-- Makes RUN the newest of a job, if no other submission came between and nobody has given it up.
-- KEYS: jobs, leaving   ARGV: name, the run that was newest ('' for none), run, what the journal is to say of the old one
-- Returns 1 if it did, 0 if another run is the newest, -1 if it was given up.
local newest = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local entry = redis.call('HGET', KEYS[2], ARGV[3]) or ''
if newest ~= ARGV[2] then
  return 0
end
if string.sub(entry, 1, 11) ~= 'persisting ' then
  return -1
end
-- First: whoever finds this entry while its run is still the newest drops it.
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[2], ARGV[3])
return 1
