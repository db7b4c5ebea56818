#!lua flags=allow-oom
-- Changes what the journal says of a run, if it says what is expected.
-- KEYS: leaving   ARGV: run, expected first word, new entry   Returns 1 if it did.
local entry = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if string.match(entry, '^%S+') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
