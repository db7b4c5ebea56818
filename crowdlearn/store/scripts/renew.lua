#!lua flags=allow-oom
-- KEYS: lease   ARGV: member, lease (ms)   Returns 1 if the member still held it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
